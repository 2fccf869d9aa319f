"""The share worker: mounts the host's share for everybody, in the launcher's namespaces, and goes. It decides nothing about folders.

The mount has neither set-id programs nor devices. No session sees it: what a session's tree has of it are folders that were granted.
Sources: fsopen(2), move_mount(2), Documentation/filesystems/virtiofs.rst, 9p.rst.
"""

from __future__ import annotations

import os
import socket

import msgspec

from coworkd.model import share
from coworkd.system import mounts
from coworkd.system.mountinfo import read_mounts
from coworkd.system.worker_socket import WorkerSocket

_decoder: msgspec.msgpack.Decoder[share.Request] = msgspec.msgpack.Decoder(share.Request)
_ATTRIBUTES = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV
_OPTIONS: dict[share.ShareKind, tuple[tuple[str, str | None], ...]] = {
    "virtiofs": (),
    # The protocol of Linux, nothing kept that the host may change under us.
    "9p": (("trans", "virtio"), ("version", "9p2000.L"), ("cache", "none"), ("msize", "262144")),
}


def serve(connection: socket.socket) -> None:
    """Answer until the end of file."""
    link = WorkerSocket(connection, _decoder)
    while (received := link.receive()) is not None:
        request, _ = received
        link.send(answer(request))


def answer(request: share.MountShare) -> share.Answer:
    """What came of it; what the kernel says of each kind is in the reason."""
    try:
        there = mounted_kind(request.mount_point)
        if there is not None:
            return share.ShareMounted(id=request.id, kind=there, already=True)
        os.makedirs(request.mount_point, 0o711, exist_ok=True)
    except OSError as error:
        return share.ShareAbsent(id=request.id, reason=f"{os.fsdecode(request.mount_point)}: {error.strerror}")
    said = []
    for kind in request.kinds:
        try:
            mount(kind, request.tag, request.mount_point)
        except OSError as error:
            said.append(f"{kind}: {error.strerror}")
        else:
            return share.ShareMounted(id=request.id, kind=kind, already=False)
    return share.ShareAbsent(id=request.id, reason=f"the share {request.tag!r} cannot be mounted ({'; '.join(said)})")


def mounted_kind(mount_point: bytes) -> share.ShareKind | None:
    """What of ours is mounted there now. Raises `OSError`, EBUSY for something else."""
    on_top: share.ShareKind | None = None
    for entry in read_mounts():
        if entry.mount_point == mount_point:
            if entry.kind not in ("virtiofs", "9p"):
                raise OSError(16, f"a {entry.kind} is mounted there; unmount it")
            on_top = "virtiofs" if entry.kind == "virtiofs" else "9p"
    return on_top


def mount(kind: share.ShareKind, tag: str, mount_point: bytes) -> None:
    """Raises `OSError` in the kernel's words."""
    made = mounts.make_file_system(kind, (("source", tag), *_OPTIONS[kind]), attributes=_ATTRIBUTES)
    try:
        target = os.open(mount_point, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mounts.move_mount(made, target)
        finally:
            os.close(target)
    finally:
        os.close(made)
