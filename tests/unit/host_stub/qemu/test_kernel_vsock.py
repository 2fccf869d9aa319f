"""The relay over sockets of another family: nothing here opens AF_VSOCK."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from host_stub.qemu import kernel_vsock
from host_stub.qemu.kernel_vsock import KernelVsock, check_device, read_port
from host_stub.qemu.sockets import listen_at
from host_stub.words import Trouble

Ask = Callable[[Path], Awaitable[None]]


def listener_at(path: Path) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(listen_at(path)))


def with_relay(place: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch, cid: int | None = 3) -> None:
    """A relay whose guest echoes at port 5005, and whose guest's connections to port 5006 come by `place/guest`."""
    monkeypatch.setattr(kernel_vsock, "cid_of", lambda stream: cid)

    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()

    async def dial(port: int) -> trio.SocketStream:
        if port != 5005:
            raise ConnectionResetError
        return await trio.open_unix_socket(place / "echo")

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, echo, [listener_at(place / "echo")])
                relay = KernelVsock(place / "v", 3, dial, [(5006, listener_at(place / "guest"))])
                await nursery.start(relay.serve)
                await ask(place)
                nursery.cancel_scope.cancel()
            assert not (place / "v").exists()

    trio.run(main)


async def all_of(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


def test_a_host_reaches_a_port_of_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(place: Path) -> None:
        async with await trio.open_unix_socket(place / "v") as stream:
            await stream.send_all(b"CONNECT 5005\nhello")
            await stream.send_eof()
            assert await all_of(stream) == b"OK 5005\nhello"

    with_relay(tmp_path, ask, monkeypatch)


@pytest.mark.parametrize(
    "said", [b"CONNECT 9\n", b"GET / HTTP/1.1\r\n\r\n", b"CONNECT x\n", b"CONNECT " + b"1" * 99, b""]
)
def test_what_cannot_be_is_closed_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    async def ask(place: Path) -> None:
        async with await trio.open_unix_socket(place / "v") as stream:
            await stream.send_all(said)
            await stream.send_eof()
            with contextlib.suppress(trio.BrokenResourceError):  # reset, for not all that was said was read
                assert await all_of(stream) == b""

    with_relay(tmp_path, ask, monkeypatch)


def test_the_guest_reaches_a_port_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(place: Path) -> None:
        async with listener_at(place / "v_5006") as host, trio.open_nursery() as nursery:

            async def answer() -> None:
                async with await host.accept() as stream:
                    await stream.send_all(b"got " + await all_of(stream))

            nursery.start_soon(answer)
            async with await trio.open_unix_socket(place / "guest") as guest:
                await guest.send_all(b"this")
                await guest.send_eof()
                assert await all_of(guest) == b"got this"

    with_relay(tmp_path, ask, monkeypatch)


@pytest.mark.parametrize("cid", [4, 2, None])
def test_another_guest_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cid: int | None) -> None:
    async def ask(place: Path) -> None:
        async with listener_at(place / "v_5006"), await trio.open_unix_socket(place / "guest") as guest:
            assert await all_of(guest) == b""

    with_relay(tmp_path, ask, monkeypatch, cid)


def test_a_port_nobody_listens_at_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(place: Path) -> None:
        async with await trio.open_unix_socket(place / "guest") as guest:
            assert await all_of(guest) == b""

    with_relay(tmp_path, ask, monkeypatch)


@pytest.mark.parametrize(
    ("line", "port"), [(b"CONNECT 1\n", 1), (b"CONNECT 4294967295\n", 4294967295), (b"CONNECT 4294967296\n", None)]
)
def test_ports_are_numbers_of_32_bits(line: bytes, port: int | None) -> None:
    async def main() -> int | None:
        near, far = trio.testing.memory_stream_pair()
        await far.send_all(line)
        return await read_port(near)

    assert trio.run(main) == port


def test_a_device_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(Trouble) as caught:
        check_device(3, tmp_path / "none")
    assert caught.value.code == "no_vsock"
    (tmp_path / "plain").touch()
    with pytest.raises(Trouble):
        check_device(3, tmp_path / "plain")
