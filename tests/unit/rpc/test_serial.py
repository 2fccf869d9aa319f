from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from coworkd.rpc.serial import IDLE_S, PortLinks
from coworkd.rpc.transport import Transport
from coworkd.wire.endpoint import VirtioEndpoint
from tests.unit.rpc.fakes import run

NONCE = b"0123456789abcdef"
MARK = b"\xc1" + NONCE
PORT = VirtioEndpoint(path="/dev/virtio-ports/coworkd")


class FakePort:
    """A socket pair in the place of the port; each opening gives a new one."""

    def __init__(self) -> None:
        self.hosts: list[socket.socket] = []

    def open(self, path: str) -> int:
        assert path == PORT.path
        ours, theirs = socket.socketpair()
        theirs.settimeout(60)
        self.hosts.append(theirs)
        return ours.detach()

    def close(self) -> None:
        for host in self.hosts:
            host.close()


def with_port(test: Callable[[FakePort, PortLinks], Awaitable[None]]) -> None:
    async def main() -> None:
        port = FakePort()
        links = PortLinks(PORT, port.open)
        await test(port, links)
        links.close()
        links.close()
        port.close()

    run(main)


async def start(links: PortLinks, nursery: trio.Nursery, got: list[tuple[Transport, bytes]]) -> None:
    async def wait() -> None:
        got.append(await links.next_link())

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()


def test_a_link_begins_behind_the_mark_and_the_port_stays_for_the_next() -> None:
    async def check(port: FakePort, links: PortLinks) -> None:
        got: list[tuple[Transport, bytes]] = []
        async with trio.open_nursery() as nursery:
            await start(links, nursery, got)
            port.hosts[0].sendall(b"old half" + MARK + b"\x94\x00")
        transport, first = got.pop()
        assert (first, port.hosts[0].recv(99)) == (b"\x94\x00", MARK)
        await transport.send([b"answer"])
        assert port.hosts[0].recv(99) == b"answer"
        transport.close()
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive(1)
        with pytest.raises(trio.ClosedResourceError):
            await transport.send([b"x"])
        async with trio.open_nursery() as nursery:
            await start(links, nursery, got)
            port.hosts[0].sendall(b"rest of it" + MARK + b"\x94")
        assert len(port.hosts) == 1

    with_port(check)


def test_a_port_without_a_host_is_asked_again_now_and_then() -> None:
    async def check(port: FakePort, links: PortLinks) -> None:
        read, write = os.pipe()
        os.close(write)
        idle = PortLinks(PORT, lambda path: read)
        with trio.move_on_after(10 * IDLE_S):
            await idle.next_link()
        assert trio.current_time() == pytest.approx(10 * IDLE_S)
        idle.close()

    with_port(check)


def test_a_port_that_failed_is_opened_again() -> None:
    async def check(port: FakePort, links: PortLinks) -> None:
        got: list[tuple[Transport, bytes]] = []
        ours, theirs = socket.socketpair()
        ours.sendall(b"never read: the close below becomes a reset")
        theirs.close()
        failing = [ours.detach()]
        links = PortLinks(PORT, lambda path: failing.pop() if failing else port.open(path))
        async with trio.open_nursery() as nursery:
            await start(links, nursery, got)
            await trio.sleep(2 * IDLE_S)
            port.hosts[0].sendall(MARK + b"\x94")
        assert len(got) == 1
        links.close()

    with_port(check)


def test_a_port_that_cannot_be_opened_is_an_error() -> None:
    def refuse(path: str) -> int:
        raise OSError(16, "Device or resource busy")

    async def main() -> None:
        with pytest.raises(OSError, match="busy"):
            await PortLinks(PORT, refuse).next_link()

    run(main)
