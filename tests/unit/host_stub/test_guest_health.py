"""What a guest's health port says of it, and what it means that it says nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from coworkd.wire.endpoint import HybridEndpoint, UnixEndpoint
from host_stub import guest_health
from host_stub.guest_health import explain, look

LIVES = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"live": true, "turned_ago_s": 0.5}'
STUCK = b'HTTP/1.1 503 x\r\n\r\n{"live": false, "turned_ago_s": 33.4}'


def ask(tmp_path: Path, answer: bytes | None, *, hybrid: bool = False) -> str:
    """What is made of a port that answers so; None: it takes the request and says nothing."""
    path = str(tmp_path / "s")
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            if hybrid:
                assert await stream.receive_some(100) == b"CONNECT 5008\n"
                await stream.send_all(b"OK 7\n")
            asked.append(await stream.receive_some(1000))
            if answer is None:
                await trio.sleep_forever()
            else:
                await stream.send_all(answer)

    async def main() -> str:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.bind(path)
            raw.listen()
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(raw))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, serve, [listener])
                said = await look(HybridEndpoint(path=path, port=5008) if hybrid else UnixEndpoint(path=path))
                nursery.cancel_scope.cancel()
        return said

    said = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.2 if answer is None else 20.0))
    assert asked[0].startswith(b"GET /live HTTP/1.1\r\n")
    return said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (LIVES, "coworkd lives, its loop turned 0.5 s ago: what hangs is the link"),
        (STUCK, "coworkd hangs: its loop has not turned for 33 s, and the guest lives"),
        (None, "nothing is said at its health port either: the guest itself stands still"),
        (b"", "its health port breaks off: coworkd has just ended, or the guest is going down"),
        (b"\x16\x03\x01", "its health port says nothing of use"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", "its health port says nothing of use"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"live": "\xff"}', "its health port says nothing of use"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 8000, "its health port says nothing of use"),
    ],
)
def test_what_an_answer_means(tmp_path: Path, answer: bytes | None, said: str) -> None:
    assert ask(tmp_path, answer) == said


def test_it_is_asked_through_the_socket_of_the_machine_monitor(tmp_path: Path) -> None:
    assert ask(tmp_path, LIVES, hybrid=True).startswith("coworkd lives")


def test_where_nobody_listens_that_is_said(tmp_path: Path) -> None:
    said: Callable[[], str] = lambda: trio.run(look, UnixEndpoint(path=str(tmp_path / "nowhere")))  # noqa: E731
    assert said().startswith("nobody answers at its health port: ")


@pytest.mark.parametrize("turned", [None, "5", True, float("nan"), float("inf")])
def test_a_number_that_is_none_is_of_no_use(turned: object) -> None:
    assert explain({"live": False, "turned_ago_s": turned}) == "its health port says nothing of use"


def test_an_endless_answer_is_cut(tmp_path: Path) -> None:
    body = b'HTTP/1.1 200 OK\r\n\r\n{"live": true, "x": "' + b"x" * (4 * guest_health._ANSWER_BYTES)
    assert ask(tmp_path, body) == "its health port says nothing of use"
