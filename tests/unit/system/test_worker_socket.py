"""A worker's end of its conversation, against bytes of every kind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from msgspec import Struct

from coworkd.system import packet
from coworkd.system.worker_socket import WorkerSocket


class Word(Struct, frozen=True, kw_only=True):
    id: int
    text: str = ""


@pytest.fixture
def pair() -> Iterator[tuple[WorkerSocket[Word], socket.socket]]:
    before = set(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield WorkerSocket(ours, msgspec.msgpack.Decoder(Word)), theirs
    ours.close()
    theirs.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_request_comes_with_its_descriptors(pair: tuple[WorkerSocket[Word], socket.socket]) -> None:
    worker, peer = pair
    fd = os.memfd_create("x")
    socket.send_fds(peer, [msgspec.msgpack.encode(Word(id=3))], [fd])
    os.close(fd)
    received = worker.receive()
    assert received is not None
    assert received[0] == Word(id=3)
    os.close(received[1][0])


@pytest.mark.parametrize("size", [10, 100_000])
def test_an_answer_of_any_length_arrives(pair: tuple[WorkerSocket[Word], socket.socket], size: int) -> None:
    worker, peer = pair
    worker.send(Word(id=1, text="x" * size))
    data, ancillary, flags, _ = peer.recvmsg(*packet.RECEIVE_ARGUMENTS)
    message, fds = packet.unpack(data, ancillary, flags)
    assert (msgspec.msgpack.decode(message, type=Word).text, fds) == ("x" * size, [])


def test_the_end_of_file_is_the_end(pair: tuple[WorkerSocket[Word], socket.socket]) -> None:
    worker, peer = pair
    peer.close()
    assert worker.receive() is None


NO_TEXT = msgspec.msgpack.encode(Word(id=1, text="x")).replace(b"\xa1x", b"\xa1\x80")
"""A word whose text is no UTF-8."""


@pytest.mark.parametrize("data", [b"\xc1", NO_TEXT, b"\x00", b"x" * 100_000])
def test_a_peer_that_breaks_the_words_is_the_end(pair: tuple[WorkerSocket[Word], socket.socket], data: bytes) -> None:
    worker, peer = pair
    fd = os.memfd_create("x")
    socket.send_fds(peer, [data], [fd] if data in (b"\xc1", NO_TEXT) else [])
    os.close(fd)
    assert worker.receive() is None


def test_an_answer_nobody_hears_is_an_error(pair: tuple[WorkerSocket[Word], socket.socket]) -> None:
    worker, peer = pair
    peer.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        worker.send(Word(id=1, text="x" * 100_000))
