"""The disk worker: root with every right, for one errand at a time of coworkd's (`model.disk`). It decides nothing about sessions.

It works in the launcher's own namespaces, so that what it mounts is there for everybody. Blocking, one request after the other; what it had
begun when it is ended goes on from there the next time.
"""

from __future__ import annotations

import socket

import msgspec
from msgspec import structs

from coworkd.model import disk
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers import disk_bring_up

_decoder: msgspec.msgpack.Decoder[disk.Request] = msgspec.msgpack.Decoder(disk.Request)


def serve(connection: socket.socket) -> None:
    """Answer until the end of file."""
    link = WorkerSocket(connection, _decoder)
    while (received := link.receive()) is not None:
        request, _ = received
        link.send(answer(request))


def answer(request: disk.Request) -> disk.Answer:
    """What came of it; an error of the system is `DiskRefused` with its words."""
    try:
        if isinstance(request, disk.BringUp):
            return disk_bring_up.bring_up(request)
        if isinstance(request, disk.FindDisk):
            return structs.replace(disk_bring_up.find(request.ask), id=request.id)
        if isinstance(request, disk.Trim):
            return disk.Trimmed(id=request.id, trimmed_bytes=disk_bring_up.trim(request.mount_point))
        before, after = disk_bring_up.grow(request.mount_point, request.size)
        return disk.Grown(id=request.id, before_bytes=before, after_bytes=after)
    except OSError as error:
        return disk.DiskRefused(id=request.id, errno=error.errno, message=error.strerror or str(error))
