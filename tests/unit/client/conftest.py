"""A guest of a few lines for the clients' tests: speaks with the msgpack library alone, never with `coworkd.wire`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

Answer = Callable[[dict[str, Any]], Any]

HELLO = {"protocol": 1, "version": "9.9", "boot_id": "b", "features": [], "stages": [], "degraded": {}}


class Fault(Exception):
    """Raised by an answer: what travels as the error."""

    def __init__(self, code: str, message: str = "no", **details: Any) -> None:
        super().__init__(message)
        self.map = {"code": code, "message": message, "details": details}


class FakeGuest:
    """The guest's end of a socket pair. `answers` maps methods to functions; `after` to what is done behind the answer.

    A method without an answer is UNIMPLEMENTED; an answer of None sends nothing. `calls` has all that came.
    """

    def __init__(self) -> None:
        self.host, self.end = socket.socketpair()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {"hello": lambda _: HELLO}
        self.after: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._thread = threading.Thread(target=self._serve)

    def begin(self) -> None:
        self._thread.start()

    def called(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == method]

    def send(self, *message: Any) -> None:
        self.end.sendall(msgpack.packb(list(message)))

    def notify(self, name: str, **params: Any) -> None:
        self.send(2, name, [params])

    def output(self, stream: str, offset: int, data: bytes, eof: bool = False, process: str = "p1") -> None:
        extra = {"eof": True} if eof else {}
        self.notify("process.output", process=process, stream=stream, offset=offset, data=data, **extra)

    def exited(self, output: str = "complete", process: str = "p1", **counts: int) -> None:
        self.notify("process.exit", **exit_record(process, output, counts))

    def hang_up(self) -> None:
        self.end.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        for end in (self.end, self.host):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        if self._thread.ident is not None:
            self._thread.join(60)
        self.end.close()
        self.host.close()

    def _serve(self) -> None:
        unpacker = msgpack.Unpacker(max_buffer_size=8 * 1024 * 1024)
        while True:
            try:
                data = self.end.recv(65536)
            except OSError:
                return
            if not data:
                return
            unpacker.feed(data)
            for _, request_id, method, (params,) in unpacker:
                self.calls.append((method, params))
                try:
                    self._answer(request_id, method, params)
                except OSError:
                    return

    def _answer(self, request_id: int, method: str, params: dict[str, Any]) -> None:
        try:
            if method not in self.answers:
                raise Fault("UNIMPLEMENTED")
            result = self.answers[method](params)
        except Fault as fault:
            self.send(1, request_id, fault.map, None)
            return
        if result is not None:
            self.send(1, request_id, None, result)
        if method in self.after:
            self.after[method](params)


def exit_record(process: str = "p1", output: str = "complete", counts: dict[str, int] | None = None) -> dict[str, Any]:
    return {
        "process": process,
        "session": "work",
        "exit": {"code": 0, "signal": None, "reason": "exited"},
        "output": output,
        "bytes": counts or {},
        "rusage": None,
        "started_at": 1.0,
        "ended_at": 2.0,
    }


@pytest.fixture
def guest() -> Iterator[FakeGuest]:
    made = FakeGuest()
    made.answers["process.start"] = lambda _: {"process": "p1", "pid": 7, "started_at": 1.0}
    made.answers["process.detach"] = lambda _: {}
    made.answers["process.kill"] = lambda _: {}
    made.answers["process.forget"] = lambda _: {}
    made.answers["process.wait"] = lambda _: exit_record()
    yield made
    made.stop()


@pytest.fixture
def next_guest() -> Iterator[FakeGuest]:
    """The one that is there when the first is gone."""
    made = FakeGuest()
    yield made
    made.stop()
