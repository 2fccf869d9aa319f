"""`services.streams_socket`: a socket as the end of a stream, and connecting one."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from coworkd.services.streams_socket import SocketEnd, connect
from tests.unit.services.process_house import in_trio, settle


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


@in_trio
async def test_reading_nothing_and_the_end_are_told_apart() -> None:
    ours, peer = socket.socketpair()
    end = SocketEnd(ours)
    assert end.read_nowait(10) is None
    peer.send(b"abc")
    await end.wait_readable()
    assert end.read_nowait(2) == b"ab"
    peer.close()
    assert end.read_nowait(10) == b"c"
    assert end.read_nowait(10) == b""
    end.close()


@in_trio
async def test_writing_takes_what_there_is_room_for() -> None:
    ours, peer = socket.socketpair()
    end = SocketEnd(ours)
    while end.write_nowait(memoryview(bytes(65536))):
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.wait_writable)
        await settle()
        while True:
            peer.setblocking(False)
            try:
                peer.recv(1 << 20)
            except BlockingIOError:
                break
    assert end.write_nowait(memoryview(b"x")) == 1
    end.close()
    peer.close()


@in_trio
async def test_an_abort_resets_and_a_close_ends() -> None:
    for abort in (True, False):
        ours, peer = tcp_pair()
        end = SocketEnd(ours)
        end.close(abort=abort)
        end.close(abort=abort)
        if abort:
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        else:
            assert peer.recv(1) == b""
        peer.close()


@in_trio
async def test_an_abort_of_a_unix_socket_just_ends() -> None:
    ours, peer = socket.socketpair()
    SocketEnd(ours).close(abort=True)
    assert peer.recv(1) == b""
    peer.close()


@in_trio
async def test_a_close_wakes_who_waits_and_refuses_who_comes_later() -> None:
    ours, peer = socket.socketpair()
    end = SocketEnd(ours)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await end.wait_readable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await settle()
        end.close()
    for later in (end.wait_readable, end.wait_writable):
        with pytest.raises(trio.ClosedResourceError):
            await later()
    peer.close()


@in_trio
async def test_connect_says_why_it_could_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.socket() as fresh:
            fresh.setblocking(False)
            await connect(fresh, address)
            assert fresh.getpeername() == address
    with socket.socket() as fresh:
        fresh.setblocking(False)
        with pytest.raises(OSError) as caught:
            await connect(fresh, address)
    assert caught.value.errno == errno.ECONNREFUSED
