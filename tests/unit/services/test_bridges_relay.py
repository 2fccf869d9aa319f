"""`services.bridges_relay`: bytes and ends both ways, without loss, and what is left of it: nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from coworkd.services import bridges_relay
from coworkd.services.bridges_relay import IDLE_PIPES, Counts, Pipes, Relay
from tests.unit.services.process_house import in_trio, jump, open_fds, settle

IDLE_S = 100.0
BIG = os.urandom(3_000_000)


class Rig:
    """A relay that runs between two socket pairs; `left` and `right` are the far ends."""

    def __init__(self, kind: str = "unix") -> None:
        self.pipes = Pipes()
        self.counts = Counts()
        pair = tcp_pair if kind == "tcp" else socket.socketpair
        ours_left, self.left = pair()
        ours_right, self.right = pair()
        for far in (self.left, self.right):
            far.setblocking(False)
        self.relay = Relay(ours_left, ours_right, pipes=self.pipes, counts=self.counts, idle_s=IDLE_S)
        self.ended: list[OSError | None] = []

    async def run(self) -> None:
        self.ended.append(await self.relay.run())


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


@asynccontextmanager
async def relayed(kind: str = "unix") -> AsyncIterator[Rig]:
    before = open_fds()
    rig = Rig(kind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await settle()
        yield rig
        nursery.cancel_scope.cancel()
    rig.pipes.close()
    rig.left.close()
    rig.right.close()
    assert open_fds() == before


async def send_all(sender: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        await trio.lowlevel.wait_writable(sender)
        view = view[sender.send(view) :]
    sender.shutdown(socket.SHUT_WR)


async def read_all(receiver: socket.socket) -> bytes:
    data = b""
    while True:
        await trio.lowlevel.wait_readable(receiver)
        piece = receiver.recv(1 << 20)
        if not piece:
            return data
        data += piece


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@in_trio
async def test_all_bytes_and_both_ends_come_through(kind: str) -> None:
    got: dict[str, str] = {}

    async def take(name: str, receiver: socket.socket) -> None:
        got[name] = hashlib.sha256(await read_all(receiver)).hexdigest()

    async with relayed(kind) as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, rig.left, BIG)
            nursery.start_soon(send_all, rig.right, BIG[::-1])
            nursery.start_soon(take, "right", rig.right)
            nursery.start_soon(take, "left", rig.left)
        await settle()
        assert rig.ended == [None]
        assert (rig.counts.sent, rig.counts.received) == (len(BIG), len(BIG))
    assert got == {name: hashlib.sha256(data).hexdigest() for name, data in (("right", BIG), ("left", BIG[::-1]))}


@in_trio
async def test_one_end_is_passed_on_and_the_other_way_stays_open() -> None:
    async with relayed() as rig:
        rig.left.send(b"ask")
        rig.left.shutdown(socket.SHUT_WR)
        await settle()
        assert rig.right.recv(10) == b"ask"
        assert rig.right.recv(10) == b""
        assert rig.ended == []
        rig.right.send(b"answer")
        rig.right.close()
        await settle()
        assert rig.left.recv(10) == b"answer"
        assert rig.left.recv(10) == b""
        assert rig.ended == [None]


@in_trio
async def test_a_reset_is_passed_on() -> None:
    async with relayed("tcp") as rig:
        rig.left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        rig.left.close()
        await settle()
        with pytest.raises(ConnectionResetError):
            rig.right.recv(10)
        assert [type(error) for error in rig.ended] == [ConnectionResetError]


@in_trio
async def test_where_nothing_moves_it_ends_and_what_moves_does_not() -> None:
    async with relayed("tcp") as rig:
        for _ in range(3):
            jump(IDLE_S - 1)
            rig.left.send(b"x")
            await settle()
        assert rig.ended == []
        jump(IDLE_S)
        await settle()
        (error,) = rig.ended
        assert isinstance(error, TimeoutError)
        assert rig.right.recv(10) == b"xxx"
        with pytest.raises(ConnectionResetError):
            rig.right.recv(10)


@in_trio
async def test_a_reader_that_stops_holds_one_chunk_back_and_loses_nothing() -> None:
    async with relayed() as rig:
        sent = 0
        while True:
            try:
                sent += rig.left.send(bytes(65536))
            except BlockingIOError:
                await settle()
                try:
                    sent += rig.left.send(bytes(65536))
                except BlockingIOError:
                    break
        got = 0
        while got < sent:
            await settle()
            got += len(rig.right.recv(1 << 20))
        assert got == sent == rig.counts.sent


@in_trio
async def test_an_idle_relay_holds_no_pipe() -> None:
    async with relayed() as rig:
        rig.left.send(b"x")
        await settle()
        held = len(open_fds())
        rig.pipes.close()
        assert len(open_fds()) == held - 2
        rig.right.send(b"y")
        await settle()
        assert rig.left.recv(10) == b"y"


@pytest.mark.parametrize("what", ["no pipe", "no splice"])
@in_trio
async def test_what_cannot_be_spliced_is_copied(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE if what == "no pipe" else errno.EINVAL, "refused")

    if what == "no pipe":
        monkeypatch.setattr(Pipes, "borrow", refuse)
    else:
        monkeypatch.setattr(bridges_relay, "splice", refuse)
    async with relayed() as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, rig.left, BIG)
            assert await read_all(rig.right) == BIG
        rig.right.shutdown(socket.SHUT_WR)
        await settle()
        assert rig.ended == [None]
        assert rig.counts.sent == len(BIG)


@in_trio
async def test_another_error_of_splice_is_the_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(bridges_relay, "splice", refuse)
    async with relayed() as rig:
        rig.left.send(b"x")
        await settle()
        assert [error and error.errno for error in rig.ended] == [errno.EIO]


@in_trio
async def test_cancelled_it_resets_both_sides() -> None:
    rig = Rig("tcp")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await settle()
        nursery.cancel_scope.cancel()
    for far in (rig.left, rig.right):
        with far, pytest.raises(ConnectionResetError):
            far.recv(10)


def test_a_pipe_with_bytes_in_it_is_never_lent_again() -> None:
    before = open_fds()
    pipes = Pipes()
    read, write = pipes.borrow()
    os.write(write, b"left over")
    pipes.give_back((read, write), empty=False)
    assert open_fds() == before
    assert pipes.borrow() is not None
    borrowed = [pipes.borrow() for _ in range(IDLE_PIPES + 3)]
    for pipe in borrowed:
        pipes.give_back(pipe, empty=True)
    assert len(open_fds()) == len(before) + 2 + 2 * IDLE_PIPES
    pipes.close()
    assert len(open_fds()) == len(before) + 2
    # The very first is still borrowed: it is the borrower's.
    for fd, what in open_fds() - before:
        assert what.startswith("pipe:")
        os.close(int(fd))
