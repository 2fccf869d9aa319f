"""The `tool` worker: brings one tool from the host's share to the session disk, and ends. Words: `model.tool`.

It is a program of its own because a share may hang: then it is killed, and nobody waits. It is root with the rights over files alone.
"""

from __future__ import annotations

import os
import socket

import msgspec

from coworkd.model.tool import ToolRequest
from coworkd.system.priority import yield_to_others
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.tool_fetch import fetch

_decoder: msgspec.msgpack.Decoder[ToolRequest] = msgspec.msgpack.Decoder(ToolRequest)


def serve(connection: socket.socket) -> None:
    """Answer until coworkd closes its end."""
    yield_to_others()
    talk = WorkerSocket(connection, _decoder)
    while (received := talk.receive()) is not None:
        request, fds = received
        for fd in fds:
            os.close(fd)
        try:
            talk.send(fetch(request))
        except OSError:
            return
