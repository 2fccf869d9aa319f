"""`launcher.gate`: a real pipe."""

from __future__ import annotations

import os

import pytest

from coworkd.launcher.gate import Gate
from coworkd.model.launch import GO
from tests.unit.launcher.launcher_room import open_fds


def test_it_is_shut_until_the_supervisor_opens_it_and_says_so_ever_after() -> None:
    gate = Gate()
    supervisors = os.dup(gate.write)
    gate.give()
    assert not gate.opened
    os.write(supervisors, GO)
    os.close(supervisors)
    assert gate.opened
    for _ in range(2):  # whoever waits, and the one that takes its place
        assert len(os.read(gate.read, 1)) == 1
        assert gate.opened
    gate.close()


def test_whoever_waits_sees_no_end_when_the_other_has_gone() -> None:
    gate = Gate()
    waits = os.dup(gate.read)
    gate.close()
    os.set_blocking(waits, False)
    with pytest.raises(BlockingIOError):
        os.read(waits, 1)
    os.close(waits)


def test_nothing_stays_and_twice_is_once() -> None:
    before = open_fds()
    gate = Gate()
    gate.close()
    gate.close()
    assert open_fds() == before


def test_a_lack_of_descriptors_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(24, "Too many open files")

    before = open_fds()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Too many"):
            Gate()
    assert open_fds() == before
