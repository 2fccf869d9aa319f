from __future__ import annotations

import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from coworkd.system import packet
from coworkd.system.supervised import SupervisorSocket, listen_early, listener_pid, peer_uid


class Word(Struct, tag="word"):
    id: int
    data: bytes = b""


Pair = tuple[SupervisorSocket[Word], socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end = SupervisorSocket(ours, msgspec.msgpack.Decoder(Word))
    yield end, theirs
    end.close()
    theirs.close()


def say(theirs: socket.socket, word: Word, *fds: int) -> None:
    data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(word), fds)
    theirs.sendmsg(data, ancillary)
    if memfd >= 0:
        os.close(memfd)


def test_nobody_can_connect_before_the_name_is_given(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener, early = listen_early(path)
    with listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        assert stat.S_IMODE(os.stat(early).st_mode) == 0o600
        with pytest.raises(FileNotFoundError):
            client.connect(path)
        os.rename(early, path)
        client.connect(path)
        accepted, _ = listener.accept()
        with accepted:
            assert peer_uid(accepted) == os.geteuid()


def test_who_listens_is_known_and_that_nobody_does(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        listener_pid(path)
    listener, early = listen_early(path)
    os.rename(early, path)
    with listener:
        assert listener_pid(path) == os.getpid()
    with pytest.raises(ConnectionRefusedError):
        listener_pid(path)


def test_a_name_left_by_one_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listen_early(path)[0].close()
    listen_early(path)[0].close()


def test_a_request_comes_with_its_descriptors(pair: Pair) -> None:
    end, theirs = pair
    fd = os.memfd_create("tty")
    say(theirs, Word(id=1), fd)
    say(theirs, Word(id=2, data=bytes(300_000)))
    received = end.receive()
    assert received is not None
    assert received[0] == Word(id=1)
    assert [os.readlink(f"/proc/self/fd/{got}") for got in received[1]] == ["/memfd:tty (deleted)"]
    for got in (fd, *received[1]):
        os.close(got)
    assert end.receive() == (Word(id=2, data=bytes(300_000)), [])
    assert end.receive() is None
    assert not end.closed


@pytest.mark.parametrize(
    "said", [b"junk", b"\xc1", b"\x81\xa1\x80\x01", b"\x00", msgspec.msgpack.encode({"type": "word"}), b""]
)
def test_words_that_are_none_end_the_conversation(pair: Pair, said: bytes) -> None:
    end, theirs = pair
    before = set(os.listdir("/proc/self/fd"))
    if said:
        fd = os.memfd_create("x")
        socket.send_fds(theirs, [said], [fd] if said != b"\x00" else [])
        os.close(fd)
    else:
        theirs.shutdown(socket.SHUT_WR)
    assert end.receive() is None
    assert end.closed
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_a_full_socket_does_not_take_is_told(pair: Pair) -> None:
    end, theirs = pair
    sent = 0
    while end.send_nowait(b"x" * 1000):
        sent += 1
    assert sent
    for _ in range(sent):
        assert theirs.recv(2000) == b"x" * 1000
    assert end.send_nowait(b"y")


def test_a_peer_that_is_gone_takes_everything(pair: Pair) -> None:
    end, theirs = pair
    theirs.close()
    assert end.send_nowait(b"x")
    assert end.closed


def test_a_request_whose_descriptors_find_no_room_comes_without_them(pair: Pair) -> None:
    end, theirs = pair
    fd = os.memfd_create("a")
    say(theirs, Word(id=1), fd, fd)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        received = end.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert received == (Word(id=1), [])
    assert not end.closed
    os.close(fd)
