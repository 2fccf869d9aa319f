"""Settings files of the image: coworkd's own, where they differ from its defaults, and the journal's."""

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

[health]
endpoints = ["vsock://:5008", "unix:///run/coworkd/health.sock"]

[guest]
keep_clock = true
power_off = true

[share]
kind = "auto"
"""


DEFAULT_PROFILE = """# The guest has no network card: what sessions may reach, the host connects them to.
[egress]
upstream = "host"
"""
"""The admin's layer over the vendor's profile `default`; it replaces the keys it has."""


def compose_settings() -> str:
    """coworkd.toml's text."""
    return _TEXT.format(home=HOME)


JOURNAL = """# In memory only, since nothing of the root is kept; what is said is seen at the first serial console, which the host keeps.
[Journal]
Storage=volatile
RuntimeMaxUse=16M
ForwardToConsole=yes
MaxLevelConsole=info
ForwardToSyslog=no
ForwardToWall=no
Audit=no
"""
