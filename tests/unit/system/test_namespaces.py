"""What needs no root: the calls' errors and the words to the interface. tests/root/test_launcher.py joins real namespaces."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from coworkd.system import namespaces


def test_unshare_refuses_flags_the_kernel_does_not_know() -> None:
    with pytest.raises(OSError, match="Invalid") as caught:
        namespaces.unshare(1)
    assert caught.value.errno == errno.EINVAL


def test_unshare_of_nothing_is_nothing() -> None:
    namespaces.unshare(0)


def test_setns_wants_a_namespace() -> None:
    with open("/dev/null") as file, pytest.raises(OSError, match="Invalid") as caught:
        namespaces.setns(file.fileno(), namespaces.CLONE_NEWNET)
    assert caught.value.errno == errno.EINVAL


def test_flags_are_those_of_the_kernel() -> None:
    """Python has them from 3.12 on; the numbers are the kernel's in any case (include/uapi/linux/sched.h)."""
    known = {name: getattr(os, name) for name in dir(os) if name.startswith("CLONE_NEW") and hasattr(namespaces, name)}
    said = {name: getattr(namespaces, name) for name in dir(namespaces) if name.startswith("CLONE_NEW")}
    assert len(set(said.values())) == 7
    assert {**said, **known} == said


def test_set_loopback_up_adds_one_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bytes]] = []

    def ioctl(control: Any, request: int, record: bytes) -> bytes:
        asked.append((request, record))
        return struct.pack("16sh22x", b"lo", 0x8)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    namespaces.set_loopback_up()
    assert asked == [
        (0x8913, struct.pack("16sh22x", b"lo", 0)),
        (0x8914, struct.pack("16sh22x", b"lo", 0x9)),
    ]


class Moves:
    """setns as told: the errors, in order, and then success."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: list[int | None] = []
        self.where: list[str] = []
        monkeypatch.setattr(namespaces, "setns", self.setns)

    def setns(self, fd: int, kind: int) -> None:
        assert kind == namespaces.CLONE_NEWNET
        number = self.errors.pop(0) if self.errors else None
        if number is not None:
            raise OSError(number, os.strerror(number))
        self.where.append(os.readlink(f"/proc/self/fd/{fd}"))


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Moves:
    return Moves(monkeypatch)


@pytest.fixture
def visits() -> Iterator[namespaces.NetworkVisits]:
    made = namespaces.NetworkVisits()
    yield made
    made.close()
    made.close()


HOME = os.readlink("/proc/self/ns/net")


def test_a_visit_goes_there_and_back(moves: Moves, visits: namespaces.NetworkVisits) -> None:
    with open("/dev/null") as there, visits.visit(there.fileno()):
        assert moves.where == ["/dev/null"]
    assert moves.where == ["/dev/null", HOME]


def test_a_visit_ends_at_home_whatever_happens_during_it(moves: Moves, visits: namespaces.NetworkVisits) -> None:
    with open("/dev/null") as there, pytest.raises(OSError, match="family"), visits.visit(there.fileno()):
        raise OSError(errno.EAFNOSUPPORT, "no such family")
    assert moves.where[-1] == HOME


def test_a_visit_that_cannot_begin_is_an_error_and_no_more(moves: Moves, visits: namespaces.NetworkVisits) -> None:
    moves.errors = [errno.EPERM]
    with open("/dev/null") as there, pytest.raises(OSError, match="not permitted"), visits.visit(there.fileno()):
        pytest.fail("it has not begun")
    assert moves.where == []


def test_a_way_back_that_lacks_memory_is_tried_again(moves: Moves, visits: namespaces.NetworkVisits) -> None:
    moves.errors = [None, errno.ENOMEM, errno.ENOMEM]
    with open("/dev/null") as there, visits.visit(there.fileno()):
        pass
    assert moves.where[-1] == HOME


@pytest.mark.parametrize("errors", [[errno.EPERM], [errno.ENOMEM] * 100])
def test_who_cannot_come_back_is_stranded(
    moves: Moves, visits: namespaces.NetworkVisits, errors: list[int | None]
) -> None:
    moves.errors = [None, *errors]
    with (
        open("/dev/null") as there,
        pytest.raises(namespaces.Stranded, match="cannot be left"),
        visits.visit(there.fileno()),
    ):
        pass
    assert not issubclass(namespaces.Stranded, OSError)
