from __future__ import annotations

import os
import pty
import socket
import tty

import pytest
import trio
import trio.testing

from coworkd.rpc.transport import PortTransport, SocketTransport, drop_sent


@pytest.mark.parametrize("sent", range(7))
def test_drop_sent_leaves_exactly_the_rest(sent: int) -> None:
    rest = drop_sent([b"ab", memoryview(b"c"), b"def"], sent)
    assert b"".join(rest) == b"abcdef"[sent:]
    assert all(len(buffer) for buffer in rest)


def test_socket_transport_sends_lists_whole_through_a_small_buffer() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for end in (ours, theirs):
            end.setblocking(False)
        transport = SocketTransport(trio.socket.from_stdlib_socket(ours))
        peer = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        buffers = [bytes([number % 251]) * (number * 7 % 1500) for number in range(1200)]
        got = bytearray()

        async def read() -> None:
            async for chunk in peer:
                got.extend(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await transport.send(buffers)
            transport.close()
            transport.close()
        await peer.aclose()
        assert got == b"".join(buffers)

    trio.run(main)


def test_socket_transport_gives_empty_bytes_at_the_end() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(b"x")
        theirs.close()
        transport = SocketTransport(trio.socket.from_stdlib_socket(ours))
        assert [await transport.receive(10), await transport.receive(10)] == [b"x", b""]
        transport.close()

    trio.run(main)


def test_port_transport_speaks_over_a_device() -> None:
    async def main() -> None:
        host, guest = pty.openpty()
        tty.setraw(guest)
        ours, theirs = PortTransport(guest), PortTransport(host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ours.send([b"x" * 50_000, memoryview(b"end")]))
            got = b""
            while len(got) < 50_003:
                got += await theirs.receive(9999)
        assert got == b"x" * 50_000 + b"end"
        ours.close()
        theirs.close()

    trio.run(main)


def test_closing_a_port_wakes_its_reader() -> None:
    async def main() -> None:
        read, write = os.pipe()
        transport = PortTransport(read)
        async with trio.open_nursery() as nursery:

            async def close_soon() -> None:
                await trio.testing.wait_all_tasks_blocked()
                transport.close()

            nursery.start_soon(close_soon)
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive(10)
        os.close(write)

    trio.run(main)


def test_one_closed_while_something_came_does_not_read_what_has_its_number_now() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        bell, bell_end = socket.socketpair()
        ours.setblocking(False)
        transport = SocketTransport(trio.socket.from_stdlib_socket(ours))
        number, outcomes = ours.fileno(), []

        async def receive() -> None:
            try:
                outcomes.append(await transport.receive(10))
            except trio.ClosedResourceError:
                outcomes.append(b"closed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            for end in (theirs, bell_end):
                end.send(b"own")
            await trio.lowlevel.wait_readable(bell)  # in one turn of the loop with the other, before or behind it
            transport.close()
            another, another_end = socket.socketpair()
            assert number in (another.fileno(), another_end.fileno())
            for end in (another, another_end):
                end.send(b"another's")
        assert outcomes[0] in (b"own", b"closed")
        for end in (theirs, bell, bell_end, another, another_end):
            end.close()

    for _ in range(30):
        trio.run(main)
