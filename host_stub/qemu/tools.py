"""What is installed on this host for QEMU: the programs and the firmware, where each system keeps them.

`find_*` look and raise Trouble with what to install. Nothing is started here except a program that says what it is.

Sources: the file lists of qemu-system-*, ovmf, qemu-efi-aarch64 (Debian), edk2-ovmf, edk2-aarch64 (Fedora), qemu (Homebrew).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from host_stub.words import Architecture, Trouble

_PREFIXES = ("/usr/share", "/opt/homebrew/share", "/usr/local/share")
_FIRMWARE: dict[Architecture, tuple[tuple[str, str], ...]] = {
    "x86_64": (
        ("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"),
        ("edk2/ovmf/OVMF_CODE.fd", "edk2/ovmf/OVMF_VARS.fd"),
        ("OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd"),
        ("qemu/edk2-x86_64-code.fd", "qemu/edk2-i386-vars.fd"),
    ),
    "aarch64": (
        ("AAVMF/AAVMF_CODE.fd", "AAVMF/AAVMF_VARS.fd"),
        ("edk2/aarch64/QEMU_EFI-pflash.raw", "edk2/aarch64/vars-template-pflash.raw"),
        ("qemu/edk2-aarch64-code.fd", "qemu/edk2-arm-vars.fd"),
    ),
}
_PACKAGES: dict[Architecture, tuple[str, str]] = {
    "x86_64": ("qemu-system-x86", "ovmf"),
    "aarch64": ("qemu-system-arm", "qemu-efi-aarch64"),
}
VIRTIOFSD_PLACES = (
    "/usr/libexec/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/lib/virtiofsd",
    "/usr/local/bin/virtiofsd",
)
_SAYS_WHAT_IT_IS_S = 10


class Firmware(Struct, frozen=True, kw_only=True):
    """EFI: the code, which is never written, and the empty variable store that each machine begins with a copy of."""

    code: Path
    empty_variables: Path


class Virtiofsd(Struct, frozen=True, kw_only=True):
    """`kind="c"` came with QEMU until 7.2 and wants root; `kind="rust"` is the one that took its place."""

    path: Path
    kind: Literal["c", "rust"]
    read_only: bool = False
    """It can show a directory that the guest cannot write."""


def find_qemu(architecture: Architecture) -> Path:
    name = f"qemu-system-{architecture}"
    found = shutil.which(name) or shutil.which(name, path="/opt/homebrew/bin:/usr/local/bin:/usr/bin")
    if found is None:
        raise Trouble("no_hypervisor", f"{name} is not installed", remedy=_how_to_install(_PACKAGES[architecture][0]))
    return Path(found)


def find_firmware(architecture: Architecture, prefixes: Sequence[str] = _PREFIXES) -> Firmware:
    for prefix in prefixes:
        for code, variables in _FIRMWARE[architecture]:
            firmware = Firmware(code=Path(prefix, code), empty_variables=Path(prefix, variables))
            if firmware.code.is_file() and firmware.empty_variables.is_file():
                return firmware
    raise Trouble(
        "no_firmware",
        f"no EFI firmware for {architecture} is installed",
        remedy=f"{_how_to_install(_PACKAGES[architecture][1])}, or start with the kernel directly (boot = kernel)",
    )


def find_virtiofsd(places: Sequence[str] = VIRTIOFSD_PLACES) -> Virtiofsd | None:
    """The first that says what it is and that we may run; None where there is none, and 9p has to do."""
    for place in (shutil.which("virtiofsd"), *places):
        if place is None or not os.access(place, os.X_OK):
            continue
        found = parse_virtiofsd_help(Path(place), _help_of(place))
        if found is not None and (found.kind == "rust" or os.geteuid() == 0):
            return found
    return None


def parse_virtiofsd_help(path: Path, text: str) -> Virtiofsd | None:
    """Which virtiofsd prints this help; None for one that is none."""
    if "--shared-dir" in text:
        return Virtiofsd(path=path, kind="rust", read_only="--readonly" in text)
    if "-o source=" in text:
        return Virtiofsd(path=path, kind="c")
    return None


def has_sandbox() -> bool:
    """QEMU's seccomp filter: built in by every distribution on Linux, and nowhere else."""
    return sys.platform == "linux"


def _help_of(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--help"], capture_output=True, text=True, timeout=_SAYS_WHAT_IT_IS_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout + done.stderr


def _how_to_install(package: str) -> str:
    if sys.platform == "darwin":
        return "install it: brew install qemu"
    return f"install it: the package is {package} on Debian and Ubuntu"
