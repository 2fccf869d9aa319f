from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.services.network_reach import open_host_stream, reach, split_target

TARGET = "probe.example:443"
HOST_URI = "unix:///run/host.sock"
Serve = Callable[[trio.abc.Stream], Awaitable[None]]


class Net:
    """Connections end at `serve`; `opened` is whereto, and whether each was closed."""

    def __init__(self, serve: Serve | OSError) -> None:
        self._serve = serve
        self.opened: list[tuple[Any, trio.abc.Stream]] = []

    async def connect(self, *where: Any) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if isinstance(self._serve, OSError):
            raise self._serve
        ours, theirs = trio.testing.memory_stream_pair()
        self.opened.append((where, theirs))
        trio.lowlevel.spawn_system_task(self._serve, theirs)
        return ours


async def silent(stream: trio.abc.Stream) -> None:
    await trio.lowlevel.checkpoint()


def says(answer: bytes, heard: list[bytes] | None = None) -> Serve:
    async def serve(stream: trio.abc.Stream) -> None:
        got = await stream.receive_some(4096)
        if heard is not None:
            heard.append(bytes(got))
        await stream.send_all(answer)

    return serve


async def hang_up(stream: trio.abc.Stream) -> None:
    await stream.receive_some(4096)
    await stream.aclose()


async def flood(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(b"x")


def ask(upstream: str, net: Net, target: str = TARGET) -> str | None:
    async def main() -> str | None:
        found = await reach(
            target, upstream=upstream, host_uri=HOST_URI, open_tcp=net.connect, open_host=net.connect
        )  # fmt: skip
        for _, theirs in net.opened:  # whatever happened, nothing of ours is left open
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await flood(theirs)
        return found

    return trio.run(main)


@pytest.mark.parametrize(
    ("target", "where"), [(TARGET, ("probe.example", 443)), ("[2001:db8::1]:22", ("2001:db8::1", 22))]
)
def test_directly_the_target_is_connected_to(target: str, where: tuple[str, int]) -> None:
    net = Net(silent)
    assert split_target(target) == where
    assert ask("direct", net, target) is None
    assert [opened for opened, _ in net.opened] == [where]


def test_a_connection_that_fails_is_a_sentence() -> None:
    refused = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    assert ask("direct", Net(refused)) == "Connection refused"
    of_several = OSError("all attempts to connect failed")
    of_several.__cause__ = refused
    assert ask("direct", Net(of_several)) == "Connection refused"


def test_the_host_is_asked_by_name() -> None:
    heard: list[bytes] = []
    net = Net(says(b"HTTP/1.1 200 OK\r\n\r\n", heard))
    assert ask("host", net) is None
    assert net.opened[0][0] == (HOST_URI,)
    assert heard[0].startswith(b"CONNECT probe.example:443 HTTP/1.1\r\n")
    assert b"Cowork-Session: coworkd\r\n" in heard[0]


def test_a_proxy_is_asked_with_its_credentials() -> None:
    heard: list[bytes] = []
    net = Net(says(b"HTTP/1.1 200 OK\r\n\r\n", heard))
    assert ask("http://me:secret@proxy.example:3128", net) is None
    assert net.opened[0][0] == ("proxy.example", 3128)
    assert b"Proxy-Authorization: Basic " in heard[0]


def test_a_socks_proxy_is_asked() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(3)
        await stream.send_all(b"\x05\x00")
        await stream.receive_some(100)
        await stream.send_all(b"\x05\x00\x00\x01\0\0\0\0\0\0")

    assert ask("socks5h://proxy.example:1080", Net(serve)) is None


def test_a_proxy_that_refuses_or_hangs_up_is_told() -> None:
    assert "403" in (ask("host", Net(says(b"HTTP/1.1 403 Forbidden\r\n\r\n"))) or "")
    assert "closed the connection" in (ask("host", Net(hang_up)) or "")


@pytest.mark.parametrize("upstream", ["https://proxy.example", "gopher://x", ""])
def test_a_parent_that_cannot_be_tried_is_told(upstream: str) -> None:
    net = Net(silent)
    assert "none that can be tried" in (ask(upstream, net) or "")
    assert net.opened == []


def test_the_hosts_socket_is_connected_to(tmp_path: Any) -> None:
    async def main() -> bytes:
        path = str(tmp_path / "host.sock")
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        with listener:
            await listener.bind(path)
            listener.listen(1)
            stream = await open_host_stream(f"unix://{path}")
            accepted, _ = await listener.accept()
            with accepted:
                await accepted.send(b"hi")
                got = bytes(await stream.receive_some(2))
            await stream.aclose()
            return got

    assert trio.run(main) == b"hi"
