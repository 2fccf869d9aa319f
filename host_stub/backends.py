"""Which back end a bundle runs on: the one that was named, else what fits this host. Each is imported only where it is used."""

from __future__ import annotations

import importlib.util
import sys

from host_stub.bundle_settings import Settings
from host_stub.words import Backend, Trouble


def choose_backend(settings: Settings, *, platform: str = sys.platform) -> Backend:
    """The back end for `settings`. Raises `Trouble` (`no_hypervisor`) for one that cannot be here."""
    wanted = settings.backend
    if wanted == "auto":
        wanted = "vz" if platform == "darwin" and has_virtualization() and settings.accelerator == "auto" else "qemu"
    if wanted == "vz":
        return _vz(platform)
    from host_stub.qemu import QemuBackend

    return QemuBackend(accelerator=None if settings.accelerator == "auto" else settings.accelerator)


def has_virtualization() -> bool:
    """Whether PyObjC's binding of Virtualization.framework is installed."""
    return importlib.util.find_spec("Virtualization") is not None


def _vz(platform: str) -> Backend:
    if platform != "darwin":
        raise Trouble(
            "no_hypervisor",
            "the back end vz is Apple's Virtualization.framework, and this is no macOS",
            remedy='use the other: "backend": "qemu" in bundle.json',
        )
    if not has_virtualization():
        raise Trouble(
            "no_hypervisor",
            "PyObjC's binding of Virtualization.framework is not installed",
            remedy='install it: pip install \'coworkd[host]\'; or use QEMU: "backend": "qemu" in bundle.json',
        )
    from host_stub.vz.backend import VzBackend

    return VzBackend()
