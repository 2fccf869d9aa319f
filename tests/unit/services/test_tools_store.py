"""Tools on the disk: switched by one rename, whole again after a crash at any step."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.model.calls_tools import ToolInfo
from coworkd.services.tools_store import ToolStore


def info(version: str, name: str = "agent", at: float = 0.0, commands: tuple[str, ...] = ("agent",)) -> ToolInfo:
    return ToolInfo(name=name, version=version, sha256="0" * 64, size_bytes=1, installed_at=at, commands=commands)


def opened(path: Path) -> ToolStore:
    store = ToolStore(str(path / "tools"))
    store.open()
    return store


def put(store: ToolStore, what: ToolInfo) -> None:
    incoming = store.make_incoming()
    for command in what.commands:
        (Path(incoming) / "root" / command).write_text(what.version)
    store.place(incoming, what, {command: command for command in what.commands})


def said(store: ToolStore, command: str = "agent") -> str | None:
    path = Path(store.tree) / "bin" / command
    return path.read_text() if path.exists() else None


def test_a_version_is_there_when_it_is_placed_and_used_when_it_is_switched_to(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, info("1"))
    assert (said(store), store.current("agent")) == (None, None)
    store.switch("agent", "1")
    put(store, info("2", at=1.0))
    assert said(store) == "1"
    store.switch("agent", "2")
    assert said(store) == "2"
    assert [(one.version, one.current) for one in store.every()] == [("2", True), ("1", False)]


def test_what_is_open_stays_readable_over_a_switch_and_a_removal(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, info("1"))
    store.switch("agent", "1")
    with open(Path(store.tree) / "bin" / "agent") as running:
        put(store, info("2"))
        store.switch("agent", "2")
        store.remove("agent", "1")
        assert running.read() == "1"


def test_commands_that_a_version_no_longer_has_go_and_new_ones_come(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, info("1", commands=("agent", "old")))
    store.switch("agent", "1")
    put(store, info("2", commands=("agent", "new")))
    store.switch("agent", "2")
    assert sorted(os.listdir(Path(store.tree) / "bin")) == ["agent", "new"]
    assert (store.owner_of("new"), store.owner_of("old")) == ("agent", None)


def test_the_last_version_takes_its_commands_along(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, info("1"))
    store.switch("agent", "1")
    store.remove("agent", "1")
    assert os.listdir(store.tree) == ["bin"]
    assert os.listdir(Path(store.tree) / "bin") == []
    assert store.every() == []


def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, info("1", at=5.0))
    store.switch("agent", "1")
    again = opened(tmp_path)
    assert again.every() == store.every()
    assert said(again) == "1"


def test_sandboxes_may_read_the_tree_and_nobody_else_may_read_the_rest(tmp_path: Path) -> None:
    before = os.umask(0o077)  # as a unit of systemd may have it
    try:
        store = opened(tmp_path)
        put(store, info("1"))
    finally:
        os.umask(before)
    modes = {
        name: stat.S_IMODE((tmp_path / "tools" / name).stat().st_mode) for name in ("", "tree", "records", "incoming")
    }
    assert modes == {"": 0o700, "tree": 0o755, "records": 0o700, "incoming": 0o700}
    tree = Path(store.tree)
    seen = (tree / "agent", tree / "agent" / "1", tree / "agent" / "1" / "bin", tree / "agent" / "1" / "root")
    assert {stat.S_IMODE(directory.stat().st_mode) for directory in seen} == {0o755}


class _Killed(Exception):
    pass


@pytest.mark.parametrize("verb", ["place", "switch", "remove"])
def test_killed_at_any_step_it_is_the_old_or_the_new_after_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Every call that changes a name is a step; before each of them in turn the program ends."""
    steps = 0
    while True:
        directory = tmp_path / f"{steps}"
        directory.mkdir()
        store = opened(directory)
        put(store, info("1", commands=("agent", "old")))
        store.switch("agent", "1")
        put(store, info("2", at=1.0, commands=("agent", "new")))
        if verb == "remove":
            store.switch("agent", "2")
        with monkeypatch.context() as patch:
            die_before(patch, steps)
            try:
                act(store, verb)
                died = False
            except _Killed:
                died = True
        again = opened(directory)
        check(again, verb)
        if not died:
            assert steps > 2
            return
        steps += 1


def act(store: ToolStore, verb: str) -> None:
    if verb == "place":
        put(store, info("3", at=2.0, commands=("agent", "third")))
    elif verb == "switch":
        store.switch("agent", "2")
    else:
        store.remove("agent", "1")


def check(store: ToolStore, verb: str) -> None:
    versions = {one.version for one in store.every()}
    current = store.current("agent")
    assert {"1", "2"} - ({"1"} if verb == "remove" else set()) <= versions
    assert current in (("1", "2") if verb == "switch" else ("2",) if verb == "remove" else ("1",))
    commands = next(one.commands for one in store.every() if one.current)
    assert sorted(os.listdir(Path(store.tree) / "bin")) == sorted(commands)
    assert [said(store, command) for command in commands] == [current] * 2
    there = {name for name in os.listdir(Path(store.tree) / "agent") if name != "current"}
    assert there == versions
    assert os.listdir(Path(store.tree).parent / "incoming") == []


def die_before(patch: pytest.MonkeyPatch, step: int) -> None:
    left = step

    def guarded(call: Callable[..., None]) -> Callable[..., None]:
        def stepping(*args: object, **more: object) -> None:
            nonlocal left
            if left == 0:
                raise _Killed
            left -= 1
            call(*args, **more)

        return stepping

    for name in ("rename", "symlink", "unlink", "mkdir", "rmdir"):
        patch.setattr(os, name, guarded(getattr(os, name)))


def test_a_record_that_cannot_be_read_is_dropped(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, info("1", at=5.0))
    put(store, info("2", at=6.0))
    (record,) = [
        path
        for path in (tmp_path / "tools").rglob("*")
        if path.is_file() and b'"2"' in path.read_bytes()[:400] and path.suffix
    ]
    record.write_bytes(record.read_bytes().replace(b'"agent"', b'"\xffagent"', 1))
    assert [one.version for one in opened(tmp_path).every()] == ["1"]
