"""Uploads and downloads of the blocking client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import InvalidParams, InvalidState, LimitExceeded, NotFound
from tests.unit.client.conftest import FakeGuest
from tests.unit.client.file_guest import FileGuest, fault


@pytest.fixture
def files(guest: FakeGuest) -> FileGuest:
    return FileGuest(guest)


@pytest.fixture
def client(files: FileGuest) -> Iterator[Client]:
    files.guest.begin()
    with Client(files.guest.host) as made:
        made.greet("test")
        yield made


def test_bytes_and_pieces_become_a_file(client: Client, files: FileGuest) -> None:
    assert client.upload("work", "a", b"hello", mode=0o600, mtime_ns=7, size=5) == 5
    assert client.upload("work", "b", (bytes([number]) * 100_000 for number in range(5)), tar=True) == 500_000
    client.call("stream.ack")
    assert files.files["a"] == b"hello"
    assert files.files["b"] == b"".join(bytes([number]) * 100_000 for number in range(5))
    first, second = files.guest.called("file.upload")
    assert first == {"session": "work", "path": "a", "tar": False, "mode": 0o600, "mtime_ns": 7, "size": 5}
    assert second == {"session": "work", "path": "b", "tar": True, "mode": 0o644}
    assert [params["stream"] for params in files.guest.called("stream.close")] == ["s1", "s2"]


def test_an_upload_that_is_refused_at_once_sends_nothing(client: Client, files: FileGuest) -> None:
    with pytest.raises(LimitExceeded, match="no room"):
        client.upload("work", "full", b"x")
    assert files.guest.called("stream.write") == []


def test_what_the_guest_says_at_the_end_is_raised(client: Client, files: FileGuest) -> None:
    files.upload_fault = fault("RESOURCE_EXHAUSTED", "the disk is full", errno=28)
    with pytest.raises(LimitExceeded, match="the disk is full"):
        client.upload("work", "a", b"x")


def test_a_guest_that_takes_no_more_says_why_at_the_streams_end(client: Client, files: FileGuest) -> None:
    files.refuse_writes(error=fault("INVALID_ARGUMENT", "no archive"))
    with pytest.raises(InvalidParams, match="no archive"):
        client.upload("work", "a", b"x", tar=True)
    assert files.guest.called("stream.close_write") == []


def test_one_that_is_closed_without_a_reason_is_told_too(client: Client, files: FileGuest) -> None:
    files.refuse_writes()
    with pytest.raises(InvalidState):
        client.upload("work", "a", b"x")


def test_whoever_makes_the_bytes_and_fails_aborts(client: Client, files: FileGuest) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        client.upload("work", "a", pieces())
    client.call("stream.ack")
    assert files.guest.called("stream.close_write") == []
    assert files.guest.called("stream.close") == [{"stream": "s1"}]


def test_a_download_is_its_bytes_and_what_is_known_of_the_file(client: Client, files: FileGuest) -> None:
    files.files["a"] = bytes(range(256)) * 1000
    with client.download("work", "a") as download:
        assert (download.size, download.mode, download.mtime_ns) == (256_000, 0o640, 5 * 10**9)
        assert b"".join(download) == files.files["a"]
    with pytest.raises(NotFound):
        client.download("work", "none")


def test_a_download_that_breaks_off_raises_behind_what_came(client: Client, files: FileGuest) -> None:
    files.files["a"] = b"some"
    files.download_fault = fault("FAILED_PRECONDITION", "left out", stage="left_out")
    got = bytearray()
    with client.download("work", "a", tar=True) as download, pytest.raises(InvalidState) as caught:  # noqa: PT012
        for piece in download:
            got += piece
    assert got == b"some"
    assert caught.value.details["stage"] == "left_out"
