"""Uploads and downloads of the trio client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from coworkd.client.aio import AsyncClient
from coworkd.model.errors import InvalidState, LimitExceeded
from tests.unit.client.conftest import FakeGuest
from tests.unit.client.file_guest import FileGuest, fault
from tests.unit.client.test_aio import run


@pytest.fixture
def files(guest: FakeGuest) -> FileGuest:
    return FileGuest(guest)


def test_bytes_pieces_and_pieces_that_take_time_become_files(files: FileGuest) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            await trio.lowlevel.checkpoint()
            yield piece

    async def body(client: AsyncClient) -> None:
        assert await client.upload("work", "a", b"hello") == 5
        assert await client.upload("work", "b", [b"x", b"y"]) == 2
        assert await client.upload("work", "c", pieces(), mode=0o600) == 6

    run(files.guest, body)
    assert files.files == {"a": b"hello", "b": b"xy", "c": b"onetwo"}


def test_what_the_guest_says_is_raised(files: FileGuest) -> None:
    async def body(client: AsyncClient) -> None:
        with pytest.raises(LimitExceeded, match="no room"):
            await client.upload("work", "full", b"")
        files.upload_fault = fault("RESOURCE_EXHAUSTED", "the disk is full")
        with pytest.raises(LimitExceeded, match="the disk is full"):
            await client.upload("work", "a", b"x")

    run(files.guest, body)


def test_a_guest_that_takes_no_more_is_told(files: FileGuest) -> None:
    files.refuse_writes()

    async def body(client: AsyncClient) -> None:
        with pytest.raises(InvalidState):
            await client.upload("work", "a", b"x")

    run(files.guest, body)


def test_cancelled_it_aborts(files: FileGuest) -> None:
    async def for_ever() -> AsyncIterator[bytes]:
        yield b"half"
        await trio.sleep_forever()

    async def body(client: AsyncClient) -> None:
        with trio.move_on_after(0.05):
            await client.upload("work", "a", for_ever())
        await client.call("stream.ack")

    run(files.guest, body)
    assert files.guest.called("stream.close_write") == []
    assert files.guest.called("stream.close") == [{"stream": "s1"}]


def test_a_download_is_its_bytes(files: FileGuest) -> None:
    files.files["a"] = bytes(range(256)) * 1000

    async def body(client: AsyncClient) -> None:
        async with await client.download("work", "a") as download:
            assert (download.size, download.mode, download.mtime_ns) == (256_000, 0o640, 5 * 10**9)
            assert b"".join([piece async for piece in download]) == files.files["a"]
        await client.call("stream.ack")

    run(files.guest, body)
    assert files.guest.called("stream.close") == [{"stream": "d1"}]
