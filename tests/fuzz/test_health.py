"""The health port: any bytes get an answer that is none of theirs, or the end; and the thread answers the next one."""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
from pathlib import Path

from coworkd.services.health_http import Answer, RequestReader
from coworkd.services.health_thread import HealthThread
from tests.fuzz.budget import play
from tests.fuzz.mutate import cut, mutate

SHARE = 0.03
_RIGHT = (
    b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\n\r\n",
    b"POST /ready HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://h/live HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)


def said(path: str) -> Answer:
    return Answer(status=200, kind="text/plain", body=b"well\n" if path == "/live" else b"other\n")


def what_is_asked(chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return chance.randbytes(chance.choice((0, 1, 50, 5000)))
    return mutate(chance, chance.choice(_RIGHT), _RIGHT)


def test_any_request_is_a_path_or_a_refusal_however_it_is_cut() -> None:
    def one_round(chance: random.Random) -> None:
        data = what_is_asked(chance)
        whole, pieces = RequestReader(), RequestReader()
        wanted = whole.feed(data) if data else None
        got: str | Answer | None = None
        for piece in cut(chance, data):
            got = got if got is not None else pieces.feed(piece)
        if not (
            isinstance(wanted, Answer) and isinstance(got, Answer)
        ):  # too long is seen sooner by one than by the other
            assert got == wanted
        assert not isinstance(got, str) or got.startswith("/")

    play(SHARE / 3, one_round)


def test_whoever_asks_the_next_one_is_answered() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(directory) / "h")
        listener.bind(path)
        listener.listen(64)
        thread = HealthThread(listener, said)
        thread.start()

        def one_round(chance: random.Random) -> None:
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.settimeout(60)
                client.connect(path)
                for piece in cut(chance, what_is_asked(chance))[:200]:
                    client.sendall(piece)
                if chance.random() < 0.7:
                    client.shutdown(socket.SHUT_WR)
                    answer = client.recv(65536)
                    assert answer.startswith(b"HTTP/1.1 ") or not answer
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(path)
                client.sendall(_RIGHT[0])
                assert client.recv(65536).endswith(b"\r\n\r\nwell\n")

        try:
            play(SHARE * 2 / 3, one_round)
        finally:
            thread.close()
