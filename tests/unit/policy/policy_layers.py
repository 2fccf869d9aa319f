"""Layers for tests: small and whole, so that a test changes only what it is about."""

from __future__ import annotations

from coworkd.policy.layers import Layer

PROFILE = """
[sandbox]
base = "dev"
seccomp = "default"
warm = 1
ask_delete = false
[limits]
memory_max = "2800M"
memory_high = "2600M"
swap_max = 0
pids_max = 1024
cpu_max = 4.0
cpu_weight = 100
io_weight = 100
tmp_max = "1G"
disk_max = "5G"
nofile = 4096
fsize_max = 0
cpu_time_s = 0
core_max = 0
spool_max = "1M"
timeout_s = 0
[folders]
modes = ["ro", "rw", "rwd", "staged"]
allow_sockets = false
[egress]
settings = "default"
upstream = "direct"
allow_max_s = 0
"""
SRT = '{"network":{"allowedDomains":[],"deniedDomains":[]},"filesystem":{"denyRead":[],"allowWrite":[],"denyWrite":[]}}'
SECCOMP = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}'
VENDOR_FILES = {
    "profiles/default.toml": PROFILE,
    "seccomp/default.json": SECCOMP,
    "egress/default.json": SRT,
}


def make_layer(root: str, **files: str) -> Layer:
    """A layer of `root`; keys are paths with `__` for `/` and `_dot_` for the dot of the ending."""
    return Layer(
        root=root,
        files={path.replace("__", "/").replace("_dot_", "."): text.encode() for path, text in files.items()},
    )


def make_vendor(**files: str) -> Layer:
    """The whole little vendor layer, with `files` in it or over it."""
    extra = make_layer("/vendor", **files)
    return Layer(root="/vendor", files={**{path: text.encode() for path, text in VENDOR_FILES.items()}, **extra.files})
