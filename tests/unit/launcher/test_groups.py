"""`launcher.groups`: what it keeps. What it does to real cgroups is tried as root (tests/root/test_limits_live.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from coworkd.launcher.groups import PRESSURE_LIMIT, Groups
from coworkd.launcher.session import Session
from coworkd.model import launch
from coworkd.model.limits import PRESSURE_KINDS, PressureKind


class Place:
    """A session as far as its pressure goes."""

    def __init__(self) -> None:
        self.pressure: dict[PressureKind, int] = {}

    def close_pressure(self) -> None:
        Session.close_pressure(cast(Session, self))


class Told:
    """A supervisor that hears everything."""

    def __init__(self) -> None:
        self.heard: list[tuple[launch.Reply, Sequence[int]]] = []

    def send(self, reply: launch.Reply, fds: Sequence[int] = ()) -> None:
        self.heard.append((reply, fds))


def test_files_of_pressure_are_kept_for_those_asked_for_last(tmp_path: Path) -> None:
    for kind in PRESSURE_KINDS:
        (tmp_path / f"{kind}.pressure").touch()
    places = {f"s{number}": Place() for number in range(PRESSURE_LIMIT + 2)}
    told = Told()
    fakes: dict[str, Any] = {"sessions": places, "supervisor": told, "session_group": lambda name: str(tmp_path)}
    unused: dict[str, Any] = dict.fromkeys(("readers", "commands_group", "process_group", "turn"))
    groups = Groups(fakes.pop("sessions"), root=str(tmp_path), **fakes, **unused)
    ask = groups.handlers()[launch.OpenPressure]
    before = len(os.listdir("/proc/self/fd"))
    for name in ("s0", "s1", "s0", *places):
        ask(launch.OpenPressure(id=1, session=name), [])
    assert [name for name, place in places.items() if not place.pressure] == ["s0", "s1"]
    assert len(os.listdir("/proc/self/fd")) - before == PRESSURE_LIMIT * len(PRESSURE_KINDS)
    (again, fds) = told.heard[2]
    assert again == launch.PressureOpened(id=1, kinds=PRESSURE_KINDS)
    assert list(fds) == list(told.heard[0][1]), "the same files for a coworkd that comes after another"
    for place in places.values():
        place.close_pressure()
