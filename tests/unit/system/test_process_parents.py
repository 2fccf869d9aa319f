"""`system.process_parents`: the way up from a process."""

from __future__ import annotations

import os
import subprocess
import threading

from coworkd.system.process_parents import read_ancestry


def test_the_way_up_begins_with_the_process_and_its_parents() -> None:
    with subprocess.Popen(["sh", "-c", "echo; read wait; :"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        found = read_ancestry(child.pid)
        child.stdin.close()
    assert found[:3] == (child.pid, os.getpid(), os.getppid())[: len(found)]
    assert 1 not in found


def test_a_thread_has_the_parents_of_its_process() -> None:
    found: list[tuple[int, ...]] = []
    thread = threading.Thread(target=lambda: found.append(read_ancestry(threading.get_native_id())))
    thread.start()
    thread.join()
    assert found[0][1:] == read_ancestry(os.getpid())[1:]


def test_what_is_gone_has_no_parents() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert read_ancestry(child.pid) == ()
    assert read_ancestry(0) == ()


def test_a_name_of_brackets_and_spaces_is_no_trap() -> None:
    name = ") R 1 ("
    script = f"open('/proc/self/comm','w').write({name!r}); print(flush=True); input()"
    with subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        found = read_ancestry(child.pid)
        child.stdin.write(b"\n")
        child.stdin.close()
    assert found[:2] == (child.pid, os.getpid())
