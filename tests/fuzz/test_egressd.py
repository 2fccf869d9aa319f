"""Whatever a client, a server or a supervisor does, coworkd-egress goes on, tells the end of all that it opened, and leaks nothing.

A relay carries every byte in its order, however it is cut, stalled and half-closed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.egressd.loop import Loop
from coworkd.egressd.pipes import PipePool, Share
from coworkd.egressd.relay import Relay
from coworkd.egressd.tcp import reset
from coworkd.model.egress import Begin, Change, Count, EgressLimits, Ping, Recorded, Stop
from tests.unit.egressd.egress_house import House, open_house, session_egress
from tests.unit.egressd.sockets import open_fds, read_all, tcp_pair, turn_until

_PIECES = (
    b"\x05\x01\x00",
    b"\x05\x01\x00\x03\x0eserver.example\x00\x50",
    b"\x04\x01\x00\x50",
    b"CONNECT server.example:PORT HTTP/1.1\r\nHost: server.example\r\n\r\n",
    b"CONNECT elsewhere.example:443 HTTP/1.1\r\n",
    b"GET http://server.example:PORT/ HTTP/1.1\r\nHost: server.example:PORT\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
)
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"hello",
    b"\r\n",
)
Move = tuple[Literal["client", "server", "end", "reset", "time", "turn"], bytes]
_said = st.one_of(st.sampled_from(_PIECES), st.binary(max_size=40))
_answered = st.one_of(st.sampled_from(_ANSWERS), st.binary(max_size=40))
_moves = st.lists(
    st.one_of(
        st.tuples(st.just("client"), _said),
        st.tuples(st.just("server"), _answered),
        st.tuples(st.sampled_from(["end", "reset", "time", "turn"]), st.just(b"")),
    ),
    max_size=12,
)


@contextlib.contextmanager
def housed() -> Iterator[House]:
    with (
        tempfile.TemporaryDirectory() as tmp,
        pytest.MonkeyPatch.context() as monkeypatch,
        open_house(tmp, monkeypatch) as house,
    ):
        yield house


@settings(max_examples=120, deadline=None)
@given(_moves)
def test_any_client_and_server_leave_nothing(moves: list[Move]) -> None:
    before = open_fds()
    with housed() as house:
        house.begin()
        server = house.server()
        proxy = house.serve(session_egress("server.example", limits=EgressLimits(connections=8)))
        client = house.client(proxy)
        far: socket.socket | None = None
        for move, data in moves:
            with contextlib.suppress(OSError):
                if move == "client":
                    client.say(data.replace(b"PORT", b"%d" % server.port))
                elif move == "server" and far is not None:
                    far.send(data)
                elif move == "end":
                    client.end()
                elif move == "reset":
                    reset(client.socket)
                    client.socket.close()
                elif move == "time":
                    house.pass_time(5)
            house.turn(2)
            if far is None and server.is_asked:
                far = server.accept().socket
        if far is not None:
            reset(far)
            far.close()
        reset(client.socket)
        client.socket.close()
        server.close()
        house.pass_time(20)
        house.until(lambda: house.count().connections == 0)
        opened = [event.connection for event in house.events if event.kind == "open"]
        closed = [event.connection for event in house.events if event.kind == "close"]
        assert sorted(opened) == sorted(closed)
        assert house.count().unrecorded == 0
    assert open_fds() == before


_requests = st.one_of(
    st.builds(
        lambda bpf: msgspec.msgpack.encode(Begin(id=1, version="x", filter_bpf=bpf, host_uri="unix:///x")),
        st.sampled_from([b"", b"12345678"]),
    ),
    st.sampled_from(
        [
            msgspec.msgpack.encode(request)
            for request in (
                Ping(id=2),
                Count(id=3),
                Stop(id=4, session="s"),
                Change(id=5, session="s", egress=session_egress("a.example"), close_forbidden=True),
                Recorded(through=0),
                Recorded(through=10**12),
                Recorded(through=-1),
            )
        ]
    ),
    st.binary(max_size=60),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_requests, max_size=8))
def test_any_supervisor_leaves_the_sessions_served(messages: list[bytes]) -> None:
    before = open_fds()
    with housed() as house:
        house.begin()
        proxy = house.serve(session_egress("server.example"))
        house.leave()
        supervisor = house.connect()
        for message in messages:
            with contextlib.suppress(OSError):
                supervisor.send(message)
            house.egress.loop.turn(0)
        supervisor.close()
        house.supervisor = None
        for _ in range(3):
            house.egress.loop.turn(0)
        house.begin()
        if "s" in house.egress._sessions:
            assert house.client(proxy).connect("nobody.example:443").startswith(b"HTTP/1.1 403 ")
    assert open_fds() == before


def read_to_end(connection: socket.socket) -> bytes:
    """All that is still to come: the kernel takes its time to deliver to small buffers what the relay has handed over."""
    connection.settimeout(60)
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


Step = tuple[Literal["up", "down", "read", "end up", "end down"], int]
_steps = st.lists(
    st.tuples(st.sampled_from(["up", "down", "read", "end up", "end down"]), st.integers(1, 200_000)), max_size=25
)


@settings(max_examples=80, deadline=None)
@given(_steps, st.sampled_from([None, 4096]), st.booleans())
def test_a_relay_carries_every_byte_in_its_order(steps: list[Step], buffer_bytes: int | None, copies: bool) -> None:
    loop, pool = Loop(), PipePool()
    client, near = tcp_pair(buffer_bytes=buffer_bytes)
    upstream, server = tcp_pair(buffer_bytes=buffer_bytes)
    ends: list[str] = []
    relay = Relay(loop, pool, Share(), near, upstream, ends.append)
    relay._up.copies = relay._down.copies = copies
    relay.start(to_client=b"first down", to_upstream=b"first up", client_mask=0, upstream_mask=0)
    sent = {client: b"first up", server: b"first down"}
    got = {client: bytearray(), server: bytearray()}
    source = os.urandom(200_000)
    open_ends = {client, server}
    for step, amount in [*steps, ("end up", 0), ("end down", 0)]:
        who = client if "up" in step else server
        if step in ("up", "down") and who in open_ends:
            with contextlib.suppress(BlockingIOError):
                sent[who] += source[: who.send(source[:amount])]
        elif step == "read":
            for end in (client, server):
                got[end] += read_all(end)
        elif step.startswith("end") and who in open_ends:
            open_ends.remove(who)
            who.shutdown(socket.SHUT_WR)
        loop.turn(0)

    def over() -> bool:
        for end in (client, server):
            got[end] += read_all(end)
        return bool(ends)

    turn_until(loop, over, turns=20_000)
    assert ends == [""]
    for end in (client, server):
        got[end] += read_to_end(end)
    assert bytes(got[server]) == sent[client]
    assert bytes(got[client]) == sent[server]
    assert (relay.sent_bytes, relay.received_bytes) == (len(sent[client]), len(sent[server]))
    assert pool.held_big == 0
    for end in (client, server):
        end.close()
    pool.close()
    assert pool.open_count == 0
    loop.close()
