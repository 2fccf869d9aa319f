"""/etc/coworkd/coworkd.toml of the image: what differs from coworkd's own defaults in a guest."""

from __future__ import annotations

from imagebuild.python_code import HOME

_TEXT = """# coworkd in this guest; coworkd.toml(5). Admin's policies: /etc/coworkd/policies.
endpoints = ["vsock://:5005", "unix:///run/coworkd/coworkd.sock"]
share_root = "/mnt/.virtiofs-root/shared"
vendor_policies = "/{home}/share/coworkd/policies"
presets = "/{home}/share/coworkd/presets.json"

[storage]
kind = "disk"
wait_s = 5

[egress]
host = "vsock://2:5006"

[guest]
keep_clock = true
power_off = true

[share]
kind = "auto"
"""


def compose_settings() -> str:
    """The file's text."""
    return _TEXT.format(home=HOME)
