"""The `stage` worker: what staged folders hold back is listed, committed and discarded by it. Words: `model.stage`; the work: `stage_work`.

Rules: one request at a time, answered in order. While it works it says so at most once a second (`Progress`), so that whoever waits can
tell a large commit from a share that hangs; where nobody hears it any more it ends, at the next step, as if killed.
"""

from __future__ import annotations

import os
import socket
import time

import msgspec

from coworkd.model.stage import Progress, ToStage
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.stage_work import answer

PROGRESS_S = 1.0
_decoder: msgspec.msgpack.Decoder[ToStage] = msgspec.msgpack.Decoder(ToStage)


class _NobodyListens(BaseException):
    """coworkd has closed its end; not an OSError, which would be told as a path's own."""


class Ticker:
    """Counts steps, and tells them now and then."""

    def __init__(self, talk: WorkerSocket[ToStage]) -> None:
        self._talk = talk
        self._steps = 0
        self._told = time.monotonic()

    def step(self, path: bytes) -> None:
        self._steps += 1
        now = time.monotonic()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        try:
            self._talk.send(Progress(steps=self._steps))
        except OSError as error:
            raise _NobodyListens from error


def serve(connection: socket.socket) -> None:
    """Answer until coworkd closes its end."""
    talk = WorkerSocket(connection, _decoder)
    ticker = Ticker(talk)
    while (received := talk.receive()) is not None:
        request, fds = received
        for fd in fds:
            os.close(fd)
        try:
            talk.send(answer(request, ticker.step))
        except (OSError, _NobodyListens):
            return
