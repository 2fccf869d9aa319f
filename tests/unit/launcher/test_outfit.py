"""Descriptors only: what is kept, what is given and in which order, and that nothing stays."""

from __future__ import annotations

import os

import pytest

from coworkd.launcher.outfit import Outfit


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def null() -> int:
    return os.open("/dev/null", os.O_RDWR)


def test_a_plain_outfit_keeps_the_ends_of_what_it_gives(null: int) -> None:
    outfit = Outfit(null)
    assert sorted(outfit.kept) == ["stderr", "stderr_spool", "stdout", "stdout_spool"]
    stdin, stdout, stderr = outfit.given[-3:]
    assert stdin == null
    os.write(stdout, b"out")
    os.write(stderr, b"err")
    assert (os.read(outfit.kept["stdout"], 9), os.read(outfit.diagnostics, 9)) == (b"out", b"err")
    assert len(outfit.given) == 5  # status and gate before them
    outfit.close()
    os.close(null)


def test_stdin_can_be_added_later(null: int) -> None:
    outfit = Outfit(null)
    outfit.add_stdin()
    os.write(outfit.kept["stdin"], b"in")
    assert os.read(outfit.given[-3], 9) == b"in"
    outfit.close()
    os.fstat(null)  # still the caller's
    os.close(null)


def test_a_gate_has_no_end_while_its_reader_lives(null: int) -> None:
    outfit = Outfit(null)
    gate = os.dup(outfit.given[1])
    outfit.give_away()
    outfit.close()
    os.set_blocking(gate, False)
    with pytest.raises(BlockingIOError):
        os.read(gate, 1)
    os.close(gate)
    os.close(null)


def test_a_terminals_outfit_gives_the_shim_its_three_in_order(null: int) -> None:
    shim = os.memfd_create("shim")
    outfit = Outfit(null, shim_fd=shim)
    link, exec_write, source, stdin, stdout, stderr = outfit.given[2:]
    assert (source, stdin, stdout) == (shim, null, null)
    os.write(link, b"m")
    os.write(exec_write, b"+")
    os.write(stderr, b"bwrap: x")
    assert outfit.exec_fd is not None
    assert os.read(outfit.kept["tty"], 9) == b"m"
    assert (os.read(outfit.exec_fd, 9), os.read(outfit.diagnostics, 9)) == (b"+", b"bwrap: x")
    outfit.close()
    os.close(shim)
    os.close(null)


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_stays(terminal: bool, null: int) -> None:
    shim = os.memfd_create("shim")
    before = open_fds()
    Outfit(null, shim_fd=shim if terminal else None).close()
    assert open_fds() == before
    os.close(shim)
    os.close(null)


def test_a_lack_of_descriptors_leaves_nothing(null: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()

    def refuse(name: str, flags: int = 0) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match="Too many"):
        Outfit(null)
    assert open_fds() == before
    os.close(null)
