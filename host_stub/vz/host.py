"""What this host is, as far as VZ cares, and whether a machine can run on it. Looking is one thing, judging another (pure).

Rules: whatever is missing is told before anything is started, with its remedy. What cannot be found out (None) stops nobody; VZ says it.

Sources: platform(3) of Python; sysctl(8) `sysctl.proc_translated` (Rosetta); Apple, "Virtualization" (the guest has the host's processor).
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from host_stub.vz.entitlement import find_interpreter, is_entitled, missing_entitlement
from host_stub.vz.framework import FLOOR, Version, no_pyobjc, require
from host_stub.words import Architecture, MachineSpec, Trouble

_MACHINES: dict[str, Architecture] = {"arm64": "aarch64", "aarch64": "aarch64", "x86_64": "x86_64"}
_NVME: Version = (14, 0)


class Host(Struct, frozen=True, kw_only=True):
    """`architecture` is the processor's, whatever this Python was made for; `translated`: this Python runs under Rosetta."""

    system: str
    architecture: Architecture | None
    translated: bool = False
    macos: Version | None = None
    pyobjc: bool = False
    interpreter: Path
    entitled: bool | None = None


def look_at_host() -> Host:
    """Blocks for the moments that codesign and sysctl take; off a Mac neither is run."""
    if sys.platform != "darwin":
        return Host(
            system=sys.platform, architecture=_MACHINES.get(platform.machine()), interpreter=Path(sys.executable)
        )
    interpreter = find_interpreter()
    translated = _sysctl("sysctl.proc_translated") == "1"
    return Host(
        system="darwin",
        architecture="aarch64" if translated else _MACHINES.get(platform.machine()),
        translated=translated,
        macos=parse_version(_sysctl("kern.osproductversion") or platform.mac_ver()[0]),
        pyobjc=all(importlib.util.find_spec(name) is not None for name in ("objc", "Foundation", "Virtualization")),
        interpreter=interpreter,
        entitled=is_entitled(interpreter),
    )


def parse_version(text: str) -> Version | None:
    """`14.6.1` → (14, 6); None for what is no version."""
    parts = text.split(".")
    if not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0


def judge(host: Host, spec: MachineSpec) -> None:
    """Raises Trouble `no_hypervisor`, `wrong_architecture`, `macos_too_old`, `no_pyobjc`, `no_entitlement`."""
    judge_host(host)
    if host.architecture is not None and host.architecture != spec.architecture:
        raise Trouble(
            "wrong_architecture",
            f"the image is for {spec.architecture}, and this Mac's processor is {host.architecture}",
            remedy=f"create the bundle from the image for {host.architecture}, or use the back end qemu",
        )
    if host.macos is not None and any(disk.bus == "nvme" for disk in spec.disks):
        require(host.macos, _NVME, "NVMe disks")


def judge_host(host: Host) -> None:
    """The same without a machine, for `cowork-vm doctor`. Raises Trouble."""
    if host.system != "darwin":
        raise Trouble("no_hypervisor", "Virtualization.framework exists on macOS only", remedy="use the back end qemu")
    if host.translated:
        raise Trouble(
            "no_hypervisor",
            "this Python is made for x86_64 and runs under Rosetta, where no machine can be started",
            remedy="install coworkd with a Python for arm64",
        )
    if host.macos is not None:
        require(host.macos, FLOOR, "machines by Virtualization.framework")
    if not host.pyobjc:
        raise no_pyobjc("PyObjC is not installed")
    if host.entitled is False:
        raise missing_entitlement(interpreter=host.interpreter)


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("ascii", "replace").strip()
