"""Whose limit a command died of, by counters in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.launcher.oom import Deaths, OomLevels
from coworkd.model.limits import Oom


class Levels:
    """The cgroups of one session with two commands, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root, self.session = root, root / "s-bob"
        self.commands = [self.session / "commands" / name for name in ("p-1", "p-2")]
        for command in self.commands:
            command.mkdir(parents=True)
        self.now = 0.0
        self.ooms = OomLevels(str(root), lambda: self.now)

    def count(self, path: Path, *, oom: int, kills: int = 0) -> None:
        (path / "memory.events.local").write_text(f"low 0\nmax 9\noom {oom}\noom_kill {kills}\n")
        (path / "memory.events").write_text(f"low 0\nmax 9\noom {oom}\noom_kill {kills}\n")

    def kill(self, position: int, *, own: bool = False) -> None:
        self.count(self.commands[position], oom=int(own), kills=2)

    def limit(self, path: Path, limit: str, peak: str) -> None:
        (path / "memory.max").write_text(f"{limit}\n")
        (path / "memory.peak").write_text(f"{peak}\n")

    def judge(self, position: int, since: float = 0.0) -> Deaths:
        return self.ooms.judge(str(self.commands[position]), since)


@pytest.fixture
def levels(tmp_path: Path) -> Levels:
    return Levels(tmp_path)


def test_without_a_kill_there_was_no_oom(levels: Levels) -> None:
    levels.count(levels.commands[0], oom=3)
    levels.count(levels.session, oom=1)
    assert levels.judge(0) == Deaths()


def test_a_kernel_that_counts_nothing_tells_of_nothing(levels: Levels) -> None:
    assert levels.judge(1) == Deaths()


def test_processes_that_were_refused_are_counted(levels: Levels) -> None:
    (levels.commands[0] / "pids.events").write_text("max 7\n")
    assert levels.judge(0).pids_refused == 7


def test_a_command_at_its_own_limit(levels: Levels) -> None:
    levels.kill(0, own=True)
    levels.limit(levels.commands[0], "1000", "998")
    levels.count(levels.session, oom=1)
    assert levels.judge(0) == Deaths(oom_kills=2, oom=Oom(scope="process", limit_bytes=1000, peak_bytes=998))


def test_a_command_at_its_sessions_limit(levels: Levels) -> None:
    levels.kill(0)
    levels.limit(levels.session, "4000", "4000")
    levels.count(levels.session, oom=1)
    assert levels.judge(0).oom == Oom(scope="session", limit_bytes=4000, peak_bytes=4000)


def test_two_commands_of_one_session_both_know(levels: Levels) -> None:
    levels.count(levels.session, oom=2)
    levels.kill(0)
    levels.kill(1)
    scopes = [deaths.oom.scope for deaths in (levels.judge(0), levels.judge(1)) if deaths.oom is not None]
    assert scopes == ["session", "session"]


def test_the_limit_of_all_sessions(levels: Levels) -> None:
    levels.kill(0)
    levels.count(levels.session, oom=1)
    assert levels.judge(0).oom == Oom(scope="session")  # seen to grow at 0
    levels.now = 10.0
    levels.kill(1)
    levels.count(levels.root, oom=1)
    levels.limit(levels.root, "9000", "9000")
    assert levels.judge(1, since=5.0).oom == Oom(scope="guest", limit_bytes=9000, peak_bytes=9000)


def test_nobody_below_the_guest_counted_one(levels: Levels) -> None:
    levels.kill(0)
    levels.limit(levels.root, "9000", "50")
    assert levels.judge(0).oom == Oom(scope="guest")


def test_a_kernel_without_a_peak_tells_the_limit(levels: Levels) -> None:
    levels.kill(0, own=True)
    (levels.commands[0] / "memory.max").write_text("1000\n")
    assert levels.judge(0).oom == Oom(scope="process", limit_bytes=1000, peak_bytes=1000)


def test_a_session_that_comes_again_begins_anew(levels: Levels) -> None:
    levels.count(levels.session, oom=5)
    levels.kill(0)
    levels.judge(0)
    levels.ooms.forget(str(levels.session))
    levels.count(levels.session, oom=1)
    levels.kill(1)
    assert levels.judge(1).oom == Oom(scope="session")
