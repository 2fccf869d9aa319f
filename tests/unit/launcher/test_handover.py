from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from msgspec import structs

from coworkd.launcher.handover import MESSAGE_LIMIT_BYTES, Handover, compose_message
from coworkd.launcher.outfit import Outfit
from coworkd.model.process import TtySize
from tests.unit.launcher.launcher_room import SPAWN, open_fds

REQUEST = structs.replace(SPAWN, argv=(b"a", b""), cwd=b"/tmp", environment=(b"A=b=c", b"B="))


@pytest.fixture
def outfit() -> Iterator[Outfit]:
    before = open_fds()
    null = os.open("/dev/null", os.O_RDWR)
    made = Outfit(null)
    made.add_exec()
    yield made
    made.close()
    os.close(null)
    assert open_fds() == before


def test_the_words_are_those_of_the_shim() -> None:
    message = b"\0".join((b"2", b"/tmp", b"", b"02013e00", b"a", b"", b"A=b=c", b"B="))
    assert compose_message(REQUEST, b"\x02\x01>\0") == message


def test_a_terminal_has_a_size() -> None:
    words = compose_message(structs.replace(REQUEST, tty=TtySize(rows=24, cols=80)), b"").split(b"\0")
    assert words[2:4] == [b"24 80", b""]


def test_it_is_sent_with_its_descriptors_and_keeps_none(outfit: Outfit) -> None:
    handover = Handover(REQUEST, outfit, native=b"")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        handover.send(ours)
        handover.close()
        handover.close()
        message, fds, _, _ = socket.recv_fds(theirs, 4096, 9)
        assert message == compose_message(REQUEST, b"")
        os.write(fds[0], b"+")
        assert outfit.exec_fd is not None
        assert os.read(outfit.exec_fd, 9) == b"+"
        for fd in fds:
            os.close(fd)


def test_a_long_one_travels_in_a_file(outfit: Outfit) -> None:
    request = structs.replace(REQUEST, argv=(b"x" * MESSAGE_LIMIT_BYTES,))
    handover = Handover(request, outfit, native=b"")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        handover.send(ours)
        handover.close()
        message, fds, _, _ = socket.recv_fds(theirs, 4096, 9)
        assert (message, len(fds)) == (b"\0", 6)
        assert os.pread(fds[-1], 2 * MESSAGE_LIMIT_BYTES, 0) == compose_message(request, b"")
        for fd in fds:
            os.close(fd)


def test_where_nobody_waits_it_can_be_sent_to_another(outfit: Outfit) -> None:
    handover = Handover(REQUEST, outfit, native=b"")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with ours, pytest.raises(BrokenPipeError):
        handover.send(ours)
    assert len(outfit.handed) == 5
    handover.close()
