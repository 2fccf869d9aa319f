from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coworkd.launcher.shim_program import ShimProgram, compile_shim, is_ours, read_shim

OURS = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """Links to interpreters of our version and of another; what is behind a link counts, not its name."""
    for name in (OURS, "python3.99"):
        (tmp_path / name).touch()
    (tmp_path / "ours").symlink_to(OURS)
    (tmp_path / "other").symlink_to("python3.99")
    return tmp_path


def test_the_version_is_what_the_link_leads_to(pythons: Path) -> None:
    assert is_ours(os.fsencode(pythons / "ours"))
    assert not is_ours(os.fsencode(pythons / "other"))
    assert not is_ours(os.fsencode(pythons / "missing"))
    (pythons / "other").unlink()
    (pythons / "other").symlink_to(OURS)  # another one was installed meanwhile
    assert is_ours(os.fsencode(pythons / "other"))


def test_each_interpreter_gets_what_it_understands_and_each_form_is_kept_once(pythons: Path) -> None:
    program = ShimProgram()
    ours, other = (program.open(os.fsencode(pythons / name)) for name in ("ours", "other"))
    try:
        assert os.pread(ours, 1 << 20, 0) == compile_shim()
        assert os.pread(other, 1 << 20, 0) == read_shim()
        assert program.open(os.fsencode(pythons / "ours")) == ours
        assert program.open(os.fsencode(pythons / "other")) == other
    finally:
        os.close(ours)
        os.close(other)


def test_python_executes_what_was_compiled_from_a_file_without_a_name() -> None:
    """Without its link the shim ends where it first looks for that: its own code has run, and was not taken for a source."""
    fd = os.memfd_create("shim")
    os.write(fd, compile_shim())
    words = [sys.executable, "-I", "-S", f"/proc/self/fd/{fd}"]
    done = subprocess.run(words, pass_fds=[fd], stderr=subprocess.PIPE, env={}, check=False)
    os.close(fd)
    assert done.returncode == 1
    assert b"Bad file descriptor" in done.stderr
    assert b"SyntaxError" not in done.stderr
