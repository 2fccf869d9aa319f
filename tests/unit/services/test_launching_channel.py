"""`services.launching_channel`: at once where there is room, in order where there is none, and no descriptor left behind."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from coworkd.model import launch
from coworkd.services.launching_channel import Channel
from coworkd.system import packet
from tests.unit.services.process_house import in_trio, open_fds

_BIG = b"x" * 60_000


@contextlib.asynccontextmanager
async def open_channel() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel and the launcher's end of it; no descriptor may be left."""
    before = open_fds()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(60)
    channel = Channel(trio.socket.from_stdlib_socket(ours))
    yield channel, theirs
    channel.close()
    channel.close()
    theirs.close()
    assert open_fds() == before


def say(theirs: socket.socket, reply: launch.Reply, *fds: int) -> None:
    data, ancillary, _ = packet.pack(msgspec.msgpack.encode(reply), fds)
    theirs.sendmsg(data, ancillary)


def hear(theirs: socket.socket) -> Any:
    message, fds = packet.unpack(*theirs.recvmsg(*packet.RECEIVE_ARGUMENTS)[:3])
    for fd in fds:
        os.close(fd)
    return msgspec.msgpack.decode(message, type=launch.Request)


@in_trio
async def test_what_has_room_goes_without_a_turn() -> None:
    async with open_channel() as (channel, theirs):
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.send(launch.Ping(id=1))
        assert hear(theirs) == launch.Ping(id=1)
        assert channel.pid == os.getpid()


@in_trio
async def test_what_has_no_room_goes_later_and_in_order_though_its_sender_is_cancelled() -> None:
    async with open_channel() as (channel, theirs), trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(20)]

        async def send(number: int) -> None:
            with scopes[number - 1]:
                await channel.send(launch.Annotate(id=number, process="p", note=_BIG))

        for number in range(1, 21):
            nursery.start_soon(send, number)
            await trio.testing.wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        heard = [(await trio.to_thread.run_sync(hear, theirs)).id for _ in range(20)]
        assert heard == list(range(1, 21))


@in_trio
async def test_everything_that_has_come_is_taken_in_one_turn() -> None:
    async with open_channel() as (channel, theirs), trio.open_nursery() as nursery:
        taken: list[launch.Reply] = []
        for number in range(5):
            say(theirs, launch.Done(id=number))
        nursery.start_soon(channel.receive, lambda reply, fds: taken.append(reply))
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [launch.Done(id=number) for number in range(5)]
        theirs.close()


@in_trio
async def test_it_ends_with_the_other_end_and_with_ours() -> None:
    async with open_channel() as (channel, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.receive, lambda reply, fds: None)
            await trio.testing.wait_all_tasks_blocked()
            theirs.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.receive, lambda reply, fds: None)
            channel.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await channel.send(launch.Ping(id=1))


@pytest.mark.parametrize("message", [b"junk", b"\xc1", msgspec.msgpack.encode({"type": "no such word"})])
@in_trio
async def test_what_cannot_be_understood_ends_it_and_its_descriptors_are_closed(message: bytes) -> None:
    async with open_channel() as (channel, theirs):
        fd = os.memfd_create("sent")
        data, ancillary, _ = packet.pack(message, (fd,))
        theirs.sendmsg(data, ancillary)
        os.close(fd)
        await channel.receive(lambda reply, fds: pytest.fail("it was understood"))


@in_trio
async def test_descriptors_are_the_takers() -> None:
    async with open_channel() as (channel, theirs):
        fd = os.memfd_create("sent")
        say(theirs, launch.SocketMade(id=1), fd)
        os.close(fd)
        theirs.shutdown(socket.SHUT_WR)
        taken: list[int] = []
        await channel.receive(lambda reply, fds: taken.extend(fds))
        assert len(taken) == 1
        os.close(taken[0])
