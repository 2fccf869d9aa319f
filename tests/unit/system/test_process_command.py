"""`system.process_command`: who a process is, and what it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from coworkd.system.process_command import COMMAND_LINE_BYTES, read_command, read_identity


def test_command_has_words_name_and_directory(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo; read wait; :", "a b", "", "\udcff\n"]
    with subprocess.Popen(argv, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        found = read_command(child.pid)
        child.stdin.close()
    assert found is not None
    assert found.argv == tuple(os.fsencode(word) for word in argv)
    assert found.directory == os.fsencode(tmp_path)
    assert found.identity.pid == child.pid
    assert not found.is_cut


def test_a_long_command_line_is_cut() -> None:
    argv = [sys.executable, "-c", "print(flush=True); input()", *(["x" * 1000] * 400)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        found = read_command(child.pid)
        child.stdin.write(b"\n")
        child.stdin.close()
    assert found is not None
    assert found.is_cut
    assert sum(len(word) + 1 for word in found.argv) <= COMMAND_LINE_BYTES
    assert set(found.argv[3:]) == {b"x" * 1000}


def test_a_thread_is_its_process() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(read_identity(threading.get_native_id())))
    thread.start()
    thread.join()
    assert found == [read_identity(os.getpid())]
    assert found[0] is not None
    assert found[0].pid == os.getpid()


def test_two_processes_are_never_the_same() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        one, other = read_identity(child.pid), read_identity(os.getpid())
    assert one is not None
    assert other is not None
    assert one != other


def test_what_is_gone_is_nothing() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert read_identity(child.pid) is None
    assert read_command(child.pid) is None
