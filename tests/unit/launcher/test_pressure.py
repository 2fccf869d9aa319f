"""What the kernel would tell is in files of the test; that it tells at all is seen in tests/root/test_warm.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from coworkd.launcher.pressure import Pressure
from coworkd.launcher.readers import Readers
from tests.unit.launcher.launcher_room import open_fds

PLENTY = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 100 kB\n"


class FakeReaders:
    """Remembers who wants to hear of what."""

    def __init__(self) -> None:
        self.urgent: dict[int, Callable[[], None]] = {}

    def register_urgent(self, fd: int, call: Callable[[], None]) -> None:
        self.urgent[fd] = call

    def drop(self, fd: int) -> None:
        del self.urgent[fd]
        os.close(fd)


class House:
    def __init__(self, directory: Path) -> None:
        self.readers = FakeReaders()
        self.meminfo = directory / "meminfo"
        self.meminfo.write_text(PLENTY)
        self.group = directory / "group"
        self.group.mkdir()
        self.told: list[str | None] = []
        self.pressure = Pressure(cast("Readers", self.readers), psi=str(directory / "psi"), meminfo=str(self.meminfo))
        self.pressure.on_short = self.told.append

    def group_has(self, **files: str) -> None:
        for name, text in files.items():
            (self.group / name.replace("_", ".")).write_text(text)

    def is_short(self) -> bool:
        return self.pressure.is_short("bob", str(self.group))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_there_is_plenty_until_less_than_a_tenth_is_available(house: House) -> None:
    assert not house.is_short()
    house.meminfo.write_text(PLENTY.replace("100 kB", "99 kB"))
    assert house.is_short()


def test_a_guest_that_cannot_be_asked_has_none_to_spare(house: House) -> None:
    house.meminfo.unlink()
    assert house.pressure.is_short("alice", None)


@pytest.mark.parametrize(("used", "limit", "short"), [("75", "100", False), ("76", "100", True), ("99", "max", False)])
def test_a_session_near_its_limit_has_none_to_spare(house: House, used: str, limit: str, short: bool) -> None:
    house.group_has(memory_current=used, memory_max=limit)
    assert house.is_short() is short
    assert not house.pressure.is_short("bob", None)


@pytest.mark.parametrize(
    ("used", "limit", "short"), [("24", "32", False), ("25", "32", True), ("0", "31", True), ("99", "max", False)]
)
def test_a_session_near_its_last_process_has_none_to_spare(house: House, used: str, limit: str, short: bool) -> None:
    house.group_has(pids_current=used, pids_max=limit)
    assert house.is_short() is short


def test_what_the_kernel_tells_of_a_session_holds_for_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    before = open_fds()
    house.group_has(memory_events="high 0\n")
    for _ in range(2):
        house.pressure.watch("bob", str(house.group))
    (call,) = house.readers.urgent.values()
    call()
    assert house.told == ["bob"]
    assert (house.is_short(), house.pressure.is_short("alice", None)) == (True, False)
    now[0] += 11
    assert not house.is_short()
    assert open_fds() == before


def test_a_session_without_counters_is_looked_at_alone(house: House) -> None:
    house.pressure.watch("bob", str(house.group))
    house.pressure.watch("bob", None)
    house.pressure.unwatch("bob")
    assert house.readers.urgent == {}


def test_what_the_kernel_tells_of_the_guest_holds_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "psi").write_text("")
    house = House(tmp_path)
    assert (tmp_path / "psi").read_bytes() == b"some 100000 1000000\0"
    (call,) = house.readers.urgent.values()
    call()
    assert house.told == [None]
    assert house.pressure.is_short("alice", None)
