from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from host_stub.vz import words
from host_stub.vz.control import ControlSocket, receive_some, rights
from tests.unit.host_stub.vz.test_words import SPEC


@pytest.fixture
def pair() -> Iterator[tuple[ControlSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    control = ControlSocket(ours, words.FromBackend)
    with theirs:
        yield control, theirs
    control.close()


def test_messages_come_with_their_descriptors(pair: tuple[ControlSocket, socket.socket]) -> None:
    control, peer = pair
    reading, writing = os.pipe()
    data = words.encode(words.Start(id=1, spec=SPEC, guest_ports=()))
    peer.sendmsg([data[:10]], rights((reading, writing)))
    peer.sendall(data[10:] + words.encode(words.Kill(id=2)))
    received = control.receive()
    assert received is not None
    message, fds = received
    assert isinstance(message, words.Start)
    os.write(fds[1], b"through")
    assert os.read(reading, 10) == b"through"
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    assert control.receive() == (words.Kill(id=2), [])
    for fd in (reading, writing, *fds):
        os.close(fd)


def test_the_peers_end_is_the_end(pair: tuple[ControlSocket, socket.socket]) -> None:
    control, peer = pair
    peer.sendall(words.encode(words.Kill(id=2))[:5])
    peer.shutdown(socket.SHUT_WR)
    assert control.receive() is None


def test_sending_to_a_peer_that_has_gone_is_no_error(pair: tuple[ControlSocket, socket.socket]) -> None:
    control, peer = pair
    peer.close()
    control.send(words.Woke())


def test_a_long_message_is_sent_whole(pair: tuple[ControlSocket, socket.socket]) -> None:
    control, peer = pair
    peer.settimeout(60)
    control.send(words.Stopped(error="x" * 100_000))
    frames, found = words.Frames(words.FromProcess), None
    while found is None:
        frames.feed(*receive_some(peer))
        found = frames.next()
    assert found == (words.Stopped(error="x" * 100_000), [])
