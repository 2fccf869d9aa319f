"""What runs beside QEMU: our vsock device, and a virtiofsd for each share.

Each gets a listening socket from us and nothing else; QEMU connects to it. `start_*` return at once, and the child's `run` belongs to
the caller. The device is run by this interpreter in isolated mode: neither the working directory nor PYTHONPATH decides whose code it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from host_stub.qemu.processes import Child, start_child
from host_stub.qemu.sockets import check_length, clear_leftover, listen_at
from host_stub.qemu.tools import Virtiofsd
from host_stub.words import Share

VSOCK_HELPER = "the vsock device"


def start_vsock(socket_path: Path, cid: int, hybrid: Path) -> Child:
    """Our vhost-user device at `socket_path`; the guest's ports at `hybrid`. Raises Trouble."""
    check_length(hybrid.with_name(f"{hybrid.name}_65535"))
    clear_leftover(hybrid)
    with listen_at(socket_path) as listener:
        return start_child(VSOCK_HELPER, compose_vsock(listener.fileno(), cid, hybrid), pass_fds=(listener.fileno(),))


def compose_vsock(listener: int, cid: int, hybrid: Path) -> list[str]:
    device = [sys.executable, "-I", "-m", "host_stub.vsock", "--listener", str(listener)]
    return [*device, "--cid", str(cid), "--hybrid", str(hybrid)]


def start_virtiofsd(daemon: Virtiofsd, share: Share, socket_path: Path) -> Child:
    """A virtiofsd for one share. Raises Trouble."""
    with listen_at(socket_path) as listener:
        argv = compose_virtiofsd(daemon, share, listener.fileno())
        return start_child(f"virtiofsd of {share.path}", argv, pass_fds=(listener.fileno(),))


def compose_virtiofsd(daemon: Virtiofsd, share: Share, listener: int) -> list[str]:
    """Pure. Attributes are not kept by the guest (timeout 0): the host's own edits must show at once, and whole.

    A share that may not be written needs a virtiofsd that can refuse: see `carries`.
    """
    if daemon.kind == "c":
        options: Sequence[str] = (
            f"source={_escaped(share.path)}",
            "cache=auto",
            "timeout=0",
            "log_level=err",
            "sandbox=namespace",
        )
        return [str(daemon.path), f"--fd={listener}", *(word for option in options for word in ("-o", option))]
    argv = [str(daemon.path), f"--fd={listener}", f"--shared-dir={share.path}", "--cache=auto", "--sandbox=namespace"]
    return [*argv, "--readonly"] if share.read_only else argv


def carries(daemon: Virtiofsd | None, share: Share) -> bool:
    """Whether the share goes by virtiofs; else it goes by 9p, which QEMU serves itself."""
    return daemon is not None and (daemon.read_only or not share.read_only)


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(",", "\\,")
