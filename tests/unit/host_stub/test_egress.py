"""The way out as a guest speaks to it: over the unix socket, to a server that really listens."""

from __future__ import annotations

import json
import resource
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from host_stub.egress import TIMING, EgressTiming, HostEgress, fit_descriptors, listen
from host_stub.egress_rules import EgressOptions
from host_stub.logs import BoundedLog
from host_stub.words import Trouble

Body = Callable[["Room"], Awaitable[None]]


class Room:
    """An egress, and a server at 127.0.0.1 that answers in capitals, once the guest has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = 0
        self.egress: HostEgress
        self.served = 0

    async def ask(self, request: bytes, *, end: bool = True) -> bytes:
        async with await trio.open_unix_socket(str(self.path)) as stream:
            await stream.send_all(request)
            if end:
                await stream.send_eof()
            answer = b""
            while data := await stream.receive_some():
                answer += bytes(data)
            return answer

    async def listen(self, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        await trio.serve_tcp(self.serve, 0, host="127.0.0.1", task_status=task_status)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.served += 1
        said = b""
        while data := await stream.receive_some():
            said += bytes(data)
        await stream.send_all(said.upper())
        await stream.aclose()


def connect(target: str, session: str | None = "work", rest: bytes = b"") -> bytes:
    field = "" if session is None else f"Cowork-Session: {session}\r\n"
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{field}\r\n".encode() + rest


def play(directory: Path, body: Body, *, timing: EgressTiming = TIMING, **options: Any) -> list[dict[str, Any]]:
    """Run `body` beside an egress; the records afterwards."""
    directory.chmod(0o700)
    room = Room(directory / "v.sock_5006")
    log = BoundedLog(directory / "egress.log", as_note=False)
    options = {"allow_addresses": ("127.0.0.1",), **options}

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                listeners = await nursery.start(room.listen)
                room.port = listeners[0].socket.getsockname()[1]
                room.egress = HostEgress(
                    room.path, EgressOptions(**options), log=log, timing=timing, lookup=lambda _: ["127.0.0.1"]
                )
                await nursery.start(room.egress.run)
                await body(room)
                nursery.cancel_scope.cancel()

    trio.run(main)
    log.close()
    assert not room.path.exists()
    file = directory / "egress.log"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_what_is_allowed_is_joined_both_ways_with_its_ends(tmp_path: Path) -> None:
    async def body(room: Room) -> None:
        answer = await room.ask(connect(f"a.example.org:{room.port}", rest=b"early "))
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nEARLY "
        await trio.testing.wait_all_tasks_blocked()

    allowed, closed = play(tmp_path, body)
    assert (allowed["event"], allowed["session"], allowed["host"], allowed["address"]) == (
        "allowed",
        "work",
        "a.example.org",
        "127.0.0.1",
    )
    assert (closed["event"], closed["up_bytes"], closed["down_bytes"]) == ("closed", 6, 6)


def test_what_is_refused_reaches_nothing_and_says_why(tmp_path: Path) -> None:
    async def body(room: Room) -> None:
        answer = await room.ask(connect(f"169.254.169.254:{room.port}"))
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"metadata" in answer
        assert room.served == 0

    records = play(tmp_path, body)
    assert [(record["event"], record["kind"]) for record in records] == [("refused", "address")]


def test_a_name_that_leads_to_this_host_is_refused_after_resolution(tmp_path: Path) -> None:
    async def body(room: Room) -> None:
        assert (await room.ask(connect(f"a.example.org:{room.port}"))).startswith(b"HTTP/1.1 403 ")
        assert room.served == 0

    play(tmp_path, body, allow_addresses=())


def test_a_server_that_is_not_there_is_a_502(tmp_path: Path) -> None:
    async def body(room: Room) -> None:
        answer = await room.ask(connect("127.0.0.1:1"))
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"Connection refused" in answer

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (connect("a.example.org:443", session=None), 400),
        (connect("a.example.org:443", session="No Session"), 400),
        (connect("a.example.org:443", session="a\r\nCowork-Session: b"), 400),
        (connect("a.example.org:0"), 400),
        (b"GET http://a.example.org/ HTTP/1.1\r\nHost: a.example.org\r\nCowork-Session: a\r\n\r\n", 501),
        (b"\x05\x01\x00", 400),
        (b"CONNECT a.example.org:443 HTTP/1.1\nHost: a\n\n", 400),
        (b"CONNECT a.example.org:443 HTTP/1.1\r\n" + b"X: y\r\n" * 5000, 431),
    ],
)
def test_what_is_no_such_request_is_answered_and_closed(tmp_path: Path, request_bytes: bytes, status: int) -> None:
    async def body(room: Room) -> None:
        assert (await room.ask(request_bytes)).startswith(b"HTTP/1.1 %d " % status)
        assert not room.egress.open

    play(tmp_path, body)


def test_a_guest_that_says_nothing_or_half_of_it_is_not_waited_for(tmp_path: Path) -> None:
    async def body(room: Room) -> None:
        assert (await room.ask(b"CONNECT a.ex", end=False)).startswith(b"HTTP/1.1 408 ")
        assert await room.ask(b"") == b""

    play(tmp_path, body, timing=EgressTiming(head_s=0.05))


def test_a_session_has_half_of_the_connections_and_all_have_a_bound(tmp_path: Path) -> None:
    async def body(room: Room) -> None:
        held = [await trio.open_unix_socket(str(room.path)) for _ in range(4)]
        for number, stream in enumerate(held):
            await stream.send_all(connect(f"127.0.0.1:{room.port}", session="ab"[number // 2]))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert (room.egress.open["a"], room.egress.open["b"]) == (2, 2)
        assert await room.ask(b"") == b""  # closed at the door
        await held.pop().aclose()
        while room.egress.open["b"] > 1:
            await trio.sleep(0)
        assert b" 429 " in await room.ask(connect(f"127.0.0.1:{room.port}", session="a"))
        for stream in held:
            await stream.aclose()

    records = play(tmp_path, body, connections=4)
    assert [record["kind"] for record in records if record["event"] == "refused"] == ["limit", "limit"]


def test_the_socket_is_private_and_stands_where_nobody_else_may_go(tmp_path: Path) -> None:
    async def body(room: Room) -> None:
        assert stat.S_IMODE(room.path.stat().st_mode) == 0o600

    play(tmp_path, body)
    tmp_path.chmod(0o755)
    with pytest.raises(Trouble) as caught:
        listen(tmp_path / "x.sock")
    assert caught.value.code == "not_private"


def test_a_socket_of_somebody_who_is_gone_is_replaced_and_of_one_who_listens_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "x.sock"

    async def main() -> None:
        listen(path).close()
        assert path.is_socket()
        second = listen(path)
        with pytest.raises(Trouble) as caught:
            listen(path)
        assert caught.value.code == "address_in_use"
        second.close()

    trio.run(main)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "x.sock"
    path.write_text("mine")

    async def main() -> None:
        with pytest.raises(Trouble):
            listen(path)

    trio.run(main)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("limits", "raised", "connections"),
    [
        ((256, 1 << 20), 2176, 1024),  # as macOS begins
        ((256, resource.RLIM_INFINITY), 2176, 1024),
        ((256, 1024), 1024, 448),
        ((1 << 20, 1 << 20), None, 1024),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, 1024),
        ((64, 64), 64, 1),
    ],
)
def test_there_are_as_many_connections_as_descriptors(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: int | None, connections: int
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: given.append(wanted))
    assert fit_descriptors(1024) == connections
    assert given == ([] if raised is None else [(raised, limits[1])])


def test_a_limit_that_cannot_be_raised_bounds_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, wanted: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise it")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert fit_descriptors(1024) == 64
