from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from host_stub.vz import console as module
from host_stub.vz.console import Console, PanicWatch, SerialLog


class Line:
    """Both ends of a console: `write` as the guest, `typed` as what it gets."""

    def __init__(self, path: Path, limit: int = 1 << 20) -> None:
        self.path = path
        output_read, self._output = os.pipe()
        self._input, input_write = os.pipe()
        self.panics = 0
        self.console = Console(output_read, input_write, SerialLog(path / "serial.log", limit), self._panic)

    def _panic(self) -> None:
        self.panics += 1

    def write(self, data: bytes) -> None:
        os.write(self._output, data)

    async def typed(self) -> bytes:
        await trio.lowlevel.wait_readable(self._input)
        return os.read(self._input, 4096)

    def hang_up(self) -> None:
        os.close(self._output)

    def log(self) -> bytes:
        return (self.path / "serial.log").read_bytes()

    async def dial(self) -> trio.SocketStream:
        return await trio.open_unix_socket(str(self.path / "c"))


@asynccontextmanager
async def running(path: Path, limit: int = 1 << 20) -> AsyncIterator[Line]:
    line = Line(path, limit)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path / "c"))
    listener.listen()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.console.run, listener)
            yield line
            line.hang_up()
            await line.console.ended.wait()
    os.close(line._input)


def run(body: Callable[[], Awaitable[None]]) -> None:
    trio.run(body)


async def until(ready: Callable[[], bool]) -> None:
    while not ready():
        await trio.lowlevel.checkpoint()


def test_output_goes_to_the_log_and_to_who_looks_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path) as line:
            async with await line.dial() as first, await line.dial() as second:
                await until(lambda: len(line.console._clients) == 2)
                line.write(b"boot\r\n")
                assert await first.receive_some(100) == b"boot\r\n"
                assert await second.receive_some(100) == b"boot\r\n"
                await first.send_all(b"ls\n")
                assert await line.typed() == b"ls\n"
            line.write(b"last words")
        assert line.log() == b"boot\r\nlast words"

    run(body)


def test_a_client_that_goes_makes_room(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path) as line:
            clients = [await line.dial() for _ in range(module.CLIENTS)]
            await until(lambda: len(line.console._clients) == module.CLIENTS)
            async with await line.dial() as one_too_many:
                assert await one_too_many.receive_some(1) == b""
            for client in clients:
                await client.aclose()
            await until(lambda: not line.console._clients)

    run(body)


def test_a_client_that_does_not_read_loses_its_connection_alone(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, 64 << 20) as line:
            lazy = await line.dial()
            await until(lambda: len(line.console._clients) == 1)
            total = 0
            while line.console._clients:
                line.write(b"x" * 16_000)
                total += 16_000
                while line.console._log._size < total:
                    await trio.lowlevel.checkpoint()
            assert total < 64 << 20
            await lazy.aclose()
        assert len(line.log()) == total

    run(body)


def test_the_log_is_bounded(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "s", 100)
    for _ in range(50):
        log.write(b"0123456789")
    log.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200
    assert (tmp_path / "s").read_bytes().endswith(b"0123456789")
    assert {path.name for path in tmp_path.iterdir()} == {"s", "s.1"}


def test_the_log_is_appended_to_and_private(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = SerialLog(tmp_path / "s")
        log.write(text)
        log.close()
        log.close()
    assert (tmp_path / "s").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_the_log_follows_no_link_and_a_disk_that_refuses_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to(tmp_path / "elsewhere")
    SerialLog(tmp_path / "s").write(b"lost")
    SerialLog(tmp_path / "none" / "s").write(b"lost")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_a_panic_is_found_in_any_pieces(piece: int) -> None:
    text = b"[    1.0] all well\n" * 5 + b"[    9.0] Kernel panic - not syncing: Attempted to kill init!\n"
    watch = PanicWatch()
    found = [watch.feed(text[start : start + piece]) for start in range(0, len(text), piece)]
    assert found.count(True) == 1
    assert not PanicWatch().feed(b"Kernel panic - not sync")


def test_a_panic_is_told_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path) as line:
            line.write(b"Kernel panic - not syncing: a\n")
            await until(lambda: line.panics == 1)
            line.write(b"Kernel panic - not syncing: b\n")
        assert line.panics == 1

    run(body)
