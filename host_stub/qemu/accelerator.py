"""Which accelerator runs the guest, and by what evidence.

/dev/kvm proves nothing by being there: it opens and makes machines on hosts whose KVM is of a paravirtual kind and runs no stock
kernel. So KVM is taken on x86_64 only where the processor says that it virtualizes (vmx or svm in /proc/cpuinfo). On aarch64
/proc/cpuinfo says nothing of it; there the kernel makes /dev/kvm only where it was itself started at EL2, and what it can do is
asked of it: PSCI 0.2 and a guest address size are what a stock kernel cannot boot without. A person may know better and names one.

Does not try an accelerator and fall back (`-accel kvm -accel tcg`): what a guest runs on is known before it is started, and told.

Sources: linux Documentation/virt/kvm/api.rst (4.1, 4.4), Documentation/virt/kvm/arm/vcpu-features; qemu(1) -accel.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from pathlib import Path

from msgspec import Struct

from host_stub.words import Accelerator, Architecture, Trouble

KVM = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
KVM_GET_API_VERSION, KVM_CHECK_EXTENSION = 0xAE00, 0xAE03
KVM_API_VERSION = 12
KVM_CAP_ARM_PSCI_0_2, KVM_CAP_ARM_VM_IPA_SIZE = 102, 165
_MACHINES: dict[str, Architecture] = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class Evidence(Struct, frozen=True, kw_only=True):
    """What is known of the host. `kvm` says why /dev/kvm cannot be used, and is None where it opens and answers rightly."""

    system: str
    """`Linux`, `Darwin`, as uname(1) says."""
    architecture: Architecture | None
    virtualizes: bool = False
    """The processor (x86_64) or KVM itself (aarch64) says that stock kernels run."""
    kvm: str | None = "not looked at"
    hvf: bool = False
    """macOS: Hypervisor.framework says that it is supported."""


class Choice(Struct, frozen=True, kw_only=True):
    """What the guest runs on, and why, for a person."""

    accelerator: Accelerator
    why: str


def choose_accelerator(architecture: Architecture, evidence: Evidence, wanted: Accelerator | None = None) -> Choice:
    """Pure. `wanted` is a person's word and taken, except where it cannot be true: raises Trouble for those."""
    foreign = evidence.architecture != architecture
    if wanted is not None:
        _refuse_impossible(wanted, foreign, evidence, architecture)
        return Choice(accelerator=wanted, why="as asked for")
    if foreign:
        return Choice(accelerator="tcg", why=f"this host is no {architecture}, so every instruction is emulated")
    if evidence.system == "Darwin":
        if evidence.hvf:
            return Choice(accelerator="hvf", why="Hypervisor.framework is supported here")
        return Choice(accelerator="tcg", why="Hypervisor.framework is not supported here")
    if evidence.system != "Linux":
        return Choice(accelerator="tcg", why=f"no accelerator is known for {evidence.system}")
    if evidence.kvm is not None:
        return Choice(accelerator="tcg", why=f"/dev/kvm: {evidence.kvm}")
    if not evidence.virtualizes:
        return Choice(accelerator="tcg", why="/dev/kvm opens, but nothing says that it runs a stock kernel")
    return Choice(accelerator="kvm", why="/dev/kvm opens and this host runs stock kernels in it")


def _refuse_impossible(wanted: Accelerator, foreign: bool, evidence: Evidence, architecture: Architecture) -> None:
    if wanted == "tcg":
        return
    if foreign:
        raise Trouble(
            "no_accelerator",
            f"{wanted} runs guests of the host's own architecture only, and this one is {architecture}",
            remedy="take the image of this host's architecture, or the accelerator tcg",
        )
    if wanted != {"Linux": "kvm", "Darwin": "hvf"}.get(evidence.system):
        raise Trouble(
            "no_accelerator", f"there is no {wanted} on {evidence.system}", remedy="leave the accelerator out"
        )
    if wanted == "kvm" and evidence.kvm is not None:
        raise Trouble(
            "no_accelerator",
            f"kvm was asked for and cannot be used: {evidence.kvm}",
            remedy="load the kvm module, join the group that owns /dev/kvm, or leave the accelerator out",
        )


def look_for_evidence() -> Evidence:
    """Ask this host. Opens /dev/kvm and makes nothing in it."""
    system = platform.system()
    architecture = _MACHINES.get(platform.machine().lower())
    if system == "Darwin":
        return Evidence(system=system, architecture=architecture, hvf=_asks_sysctl("kern.hv_support"))
    if system != "Linux":
        return Evidence(system=system, architecture=architecture)
    kvm, arm_ready = probe_kvm(KVM)
    virtualizes = parse_cpuinfo(_text_of(CPUINFO)) if architecture == "x86_64" else arm_ready
    return Evidence(system=system, architecture=architecture, kvm=kvm, virtualizes=virtualizes)


def parse_cpuinfo(text: str) -> bool:
    """Whether the first processor has vmx or svm among its flags."""
    flags = re.search(r"^flags\s*:(.*)$", text, re.M)
    return flags is not None and not {"vmx", "svm"}.isdisjoint(flags.group(1).split())


def probe_kvm(path: Path) -> tuple[str | None, bool]:
    """Why the device cannot be used (None where it can), and whether it says it can what an arm64 kernel needs."""
    import fcntl  # not on every host this module is imported on

    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return (error.strerror or str(error)).lower(), False
    try:
        if (version := fcntl.ioctl(device, KVM_GET_API_VERSION, 0)) != KVM_API_VERSION:
            return f"speaks version {version} and not {KVM_API_VERSION}", False
        asked = [
            fcntl.ioctl(device, KVM_CHECK_EXTENSION, cap) for cap in (KVM_CAP_ARM_PSCI_0_2, KVM_CAP_ARM_VM_IPA_SIZE)
        ]
    except OSError as error:
        return f"does not answer as KVM does: {error.strerror}", False
    finally:
        os.close(device)
    return None, all(value > 0 for value in asked)


def _asks_sysctl(name: str) -> bool:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, timeout=5, stdin=subprocess.DEVNULL
        )
        return done.stdout.strip() == b"1"
    return False


def _text_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""
