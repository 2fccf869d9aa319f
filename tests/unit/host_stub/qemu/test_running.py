from __future__ import annotations

from pathlib import Path

import pytest

from host_stub.qemu.running import TAIL_BYTES, find_panic, judge_end, size_of, tail_of


@pytest.mark.parametrize(
    ("reason", "status", "panic", "said", "how", "message"),
    [
        ("guest-shutdown", 0, None, "", "powered_off", "powered off"),
        ("guest-reset", 0, None, "", "reset", "started anew"),
        ("guest-reset", 0, "Kernel panic - not syncing: x", "", "panicked", "not syncing: x"),
        ("guest-panic", 0, None, "", "panicked", "panicked"),
        ("guest-shutdown", 0, "Kernel panic - not syncing: x", "", "powered_off", "powered off"),
        ("host-signal", 0, None, "", "killed", "host-signal"),
        (None, -9, None, "", "failed", "signal 9"),
        (None, 1, None, "out of luck", "failed", "with 1: out of luck"),
        ("something-new", 1, None, "", "failed", "with 1"),
    ],
)
def test_the_end_is_judged_by_all_there_is(
    reason: str | None, status: int, panic: str | None, said: str, how: str, message: str
) -> None:
    ended = judge_end(reason, status, panic, said)
    assert (ended.how, ended.exit_status) == (how, status)
    assert message in ended.message


def test_the_last_panic_is_the_one() -> None:
    text = "[1.0] Kernel panic - not syncing: one\r\n[2.0] Kernel panic - not syncing: two ]---\r\nmore\n"
    assert find_panic(text) == "Kernel panic - not syncing: two ]---"
    assert find_panic("Kernel panics are rare") is None


def test_only_what_this_life_wrote_is_looked_at(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_text("old\n")
    start = size_of(log)
    log.write_text("old\nnew\n")
    assert tail_of(log, start) == "new\n"
    log.write_text("x" * (2 * TAIL_BYTES))
    assert len(tail_of(log, start)) == TAIL_BYTES
    log.write_text("cut")
    assert tail_of(log, start) == "cut"
    assert tail_of(tmp_path / "none", 0) == ""
