"""A forker that hangs holds the launcher for a moment, once, and costs no command; what it had forked leaves nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.model import launch
from tests.root.folder_room import name_of
from tests.root.holding import held
from tests.root.launcher_talk import Started, Talk, open_launcher, session_request, spawn_request
from tests.root.live import children_of, wait_until
from tests.root.test_listeners import launcher_pid

pytestmark = pytest.mark.needs("userns", "netns")
SOON_S = 4.0
"""Less than anybody may be held for, and more than a busy machine takes for two commands."""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    with open_launcher(tmp_path) as started:
        yield started


def children(talk: Talk, name: str) -> list[int]:
    return [pid for pid in children_of(launcher_pid(talk)) if name_of(pid) == name]


def wait_standby(talk: Talk) -> None:
    """One is there and nothing is being forked: then the forker is the only child of its name."""
    wait_until(
        lambda: len(children(talk, "coworkd-standby")) == 1 and len(children(talk, "coworkd-forker")) == 1,
        "a child waits",
    )


def empty_cgroups(started: Started) -> list[Path]:
    """Of commands that are nowhere."""
    if started.cgroup is None:
        return []
    return [path for path in Path(started.cgroup).glob("s-*/commands/p-*") if not (path / "cgroup.procs").read_text()]


def run(talk: Talk, process: str) -> None:
    ended, output = talk.run(spawn_request(["echo", process], process=process))
    assert isinstance(ended, launch.Exited), ended
    assert (ended.code, output) == (0, f"{process}\n".encode())


@pytest.mark.parametrize("forked", [False, True], ids=["before", "behind"])
def test_one_that_hangs_is_replaced_at_once_and_leaves_nothing(launcher: Started, tmp_path: Path, forked: bool) -> None:
    talk = launcher.ready()
    assert isinstance(talk.ask(session_request(tmp_path / "home")), launch.Opened)
    wait_standby(talk)
    (hung,) = children(talk, "coworkd-forker")
    with held(hung, forked=forked):
        asked_at = time.monotonic()
        run(talk, "p1")  # who waited becomes that
        run(talk, "p2")
        assert isinstance(talk.ask(launch.Ping(id=0)), launch.Done)
        assert time.monotonic() - asked_at < SOON_S
        assert os.path.exists(f"/proc/{hung}")
    wait_until(lambda: hung not in children_of(launcher_pid(talk)), "it has ended and was reaped")
    # The forker, and who waits: what the one that hung had forked is not among them.
    wait_until(lambda: len(children_of(launcher_pid(talk))) == 2, "nobody else is left")
    run(talk, "p3")
    wait_standby(talk)
    wait_until(lambda: not empty_cgroups(launcher), "no cgroup is left")
