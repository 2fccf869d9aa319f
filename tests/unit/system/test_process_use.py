"""What a process takes, asked of the kernel about this one."""

from __future__ import annotations

import os
import threading

from coworkd.system.process_use import parse_pss, read_use


def test_what_this_process_takes() -> None:
    used = read_use(os.getpid())
    assert used is not None
    assert 4 << 20 < used.rss_bytes < 4 << 30
    assert used.pss_bytes is not None
    assert 1 << 20 < used.pss_bytes <= used.rss_bytes + (8 << 20)


def test_descriptors_and_threads_are_counted() -> None:
    before = read_use(os.getpid())
    opened = [os.memfd_create("x") for _ in range(3)]
    go = threading.Event()
    waiting = threading.Thread(target=go.wait)
    waiting.start()
    after = read_use(os.getpid())
    go.set()
    waiting.join()
    for fd in opened:
        os.close(fd)
    assert before is not None
    assert after is not None
    assert before.fds is not None
    assert before.threads is not None
    assert (after.fds, after.threads) == (before.fds + 3, before.threads + 1)


def test_nobody_is_none() -> None:
    assert read_use(2**22 + 1) is None


def test_a_rollup_without_its_line_is_none() -> None:
    assert parse_pss(b"55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss: 12 kB\nPss: 10 kB\nPss_Dirty: 3 kB\n") == 10240
    assert parse_pss(b"") is None
