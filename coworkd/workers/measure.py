"""The `measure` worker: looks at the trees of sessions on the session disk, prunes and re-owns them. Words: `model.measure`.

Rules: one request at a time, answered in order; it yields to everybody else (nice, idle I/O), and ends with its socket. What a disk
refuses is one `TreeFailed`, not the end. It runs as root with the rights over files alone, never as a session, and follows no link
a session has made (`measure_walk`).
"""

from __future__ import annotations

import os
import socket

import msgspec

from coworkd.model.measure import MeasureAnswer, MeasureRequest, MeasureTree, PruneTree, TreeFailed
from coworkd.system.priority import yield_to_others
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.measure_prune import prune
from coworkd.workers.measure_reown import reown
from coworkd.workers.measure_tree import measure

_decoder: msgspec.msgpack.Decoder[MeasureRequest] = msgspec.msgpack.Decoder(MeasureRequest)


def serve(connection: socket.socket) -> None:
    """Answer until coworkd closes its end."""
    yield_to_others()
    talk = WorkerSocket(connection, _decoder)
    while (received := talk.receive()) is not None:
        request, fds = received
        for fd in fds:
            os.close(fd)
        try:
            talk.send(answer(request))
        except OSError:
            return


def answer(request: MeasureRequest) -> MeasureAnswer:
    """Do what is asked, and say what came of it."""
    try:
        if isinstance(request, MeasureTree):
            return measure(request)
        if isinstance(request, PruneTree):
            return prune(request)
        return reown(request)
    except OSError as error:
        return TreeFailed(id=request.id, errno=error.errno, message=error.strerror or str(error))
