"""Descriptors only: what is kept, what is given and in which order, and that nothing stays."""

from __future__ import annotations

import os

import pytest

from coworkd.launcher.outfit import Outfit, Plumbing


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def null() -> int:
    return os.open("/dev/null", os.O_RDWR)


def test_a_plain_outfit_keeps_the_ends_of_what_it_gives(null: int) -> None:
    outfit = Outfit(null)
    assert sorted(outfit.kept) == ["stderr", "stderr_spool", "stdout", "stdout_spool"]
    stdin, stdout, stderr = outfit.given
    assert stdin == null
    os.write(stdout, b"out")
    os.write(stderr, b"err")
    assert (os.read(outfit.kept["stdout"], 9), os.read(outfit.kept["stderr"], 9)) == (b"out", b"err")
    outfit.close()
    os.close(null)


def test_stdin_can_be_added_later(null: int) -> None:
    outfit = Outfit(null)
    outfit.add_stdin()
    assert os.readlink(f"/proc/self/fd/{outfit.kept['stdin_tally']}") == "/memfd:stdin-tally (deleted)"
    os.write(outfit.kept["stdin"], b"in")
    assert os.read(outfit.given[0], 9) == b"in"
    outfit.close()
    os.fstat(null)  # still the caller's
    os.close(null)


def test_a_shim_gets_its_pipe_and_the_gate_before_the_rest(null: int) -> None:
    outfit = Outfit(null)
    outfit.add_exec()
    assert outfit.handed[1:] == [outfit.gate.read, *outfit.given]
    os.write(outfit.handed[0], b"+")
    assert outfit.exec_fd is not None
    assert os.read(outfit.exec_fd, 9) == b"+"
    outfit.close()
    os.close(null)


def test_a_terminals_outfit_gives_its_socket(null: int) -> None:
    outfit = Outfit(null, terminal=True)
    assert sorted(outfit.kept) == ["tty", "tty_spool"]
    (link,) = outfit.given
    os.write(link, b"m")
    assert os.read(outfit.kept["tty"], 9) == b"m"
    outfit.close()
    os.close(null)


def test_a_shim_has_a_link_and_its_source(null: int) -> None:
    shim = os.memfd_create("shim")
    plumbing = Plumbing(null, shim_fd=shim)
    status, link, source, stdin, stdout, stderr = plumbing.given
    assert (source, stdin, stdout) == (shim, null, null)
    os.write(status, b"{}")
    os.write(link, b"ready")
    os.write(stderr, b"bwrap: x")
    assert plumbing.link is not None
    assert plumbing.link.recv(9) == b"ready"
    assert (os.read(plumbing.status, 9), os.read(plumbing.diagnostics, 9)) == (b"{}", b"bwrap: x")
    plumbing.close()
    os.close(shim)
    os.close(null)


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_stays(terminal: bool, null: int) -> None:
    before = open_fds()
    outfit = Outfit(null, terminal=terminal)
    outfit.add_exec()
    outfit.close()
    Plumbing(null, shim_fd=null if terminal else None).close()
    assert open_fds() == before
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


@pytest.mark.parametrize(("shim", "pipes"), [(False, 0), (True, 0), (True, 1)])
def test_a_bubblewrap_that_cannot_have_its_pipes_leaves_nothing(
    null: int, shim: bool, pipes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_fds()
    left, make = list(range(pipes)), os.pipe2

    def some(flags: int) -> tuple[int, int]:
        if not left:
            raise OSError(24, "Too many open files")
        left.pop()
        return make(flags)

    monkeypatch.setattr(os, "pipe2", some)
    with pytest.raises(OSError, match="Too many"):
        Plumbing(null, shim_fd=null if shim else None)
    assert open_fds() == before
    os.close(null)
