"""The session disk as a service: how it comes up, what is watched, and what is refused when."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from coworkd.config import StorageConfig
from coworkd.model import calls_storage, disk
from coworkd.model.errors import DiskFailed, InvalidState, Unavailable
from coworkd.services.storage import FREED_TRIM_BYTES, LOOK_DEADLINE_S, LOOK_S, Storage
from coworkd.services.storage_mount import Facts
from tests.unit.services.process_house import FakeAudit, FakeEvents, in_trio, jump, settle_threads
from tests.unit.services.test_storage_mount import entry
from tests.unit.services.test_storage_room import room


class FakeDisk:
    """Implements `storage_disk.DiskPort`."""

    def __init__(self, **up: Any) -> None:
        self.answer = disk.BroughtUp(id=1, **{"state": "ok", "device": b"/dev/vdb", **up})
        self.found = disk.DiskFound(id=1, found=False)
        self.trace: list[str] = []
        self.asked: list[disk.BringUp] = []
        self.broken: Exception | None = None

    def _note(self, text: str) -> None:
        if self.broken is not None:
            raise self.broken
        self.trace.append(text)

    async def bring_up(self, ask: disk.BringUp, /) -> disk.BroughtUp:
        self._note("bring up")
        self.asked.append(ask)
        return self.answer

    async def find(self, ask: disk.BringUp, /) -> disk.DiskFound:
        self._note("find")
        return self.found

    async def trim(self, mount_point: str, /) -> int:
        self._note("trim")
        return 4096

    async def grow(self, mount_point: str, size: int | None, /) -> disk.Grown:
        self._note(f"grow {size}")
        return disk.Grown(id=1, before_bytes=1, after_bytes=2)

    async def own(self, mount_point: str, /) -> None:
        self._note("own")


class House:
    """A storage and what is around it; `facts` is what the next look sees."""

    def __init__(self, place: Path, config: StorageConfig | None = None, **up: Any) -> None:
        self.place = place
        self.disk = FakeDisk(**up)
        self.audit = FakeAudit()
        self.events = FakeEvents()
        self.told: list[str | None] = []
        self.back: list[str] = []
        self.answers = threading.Event()
        """Cleared, a look hangs until it is set."""
        self.answers.set()
        self.device_there = False
        self.facts = self.healthy()
        self.storage = Storage(
            config or StorageConfig(kind="disk"),
            sessions_dir=str(place / "sessions"),
            state_dir=str(place / "sessions" / ".coworkd"),
            worker=self.disk,
            events=self.events,
            on_state=self.told.append,
            look=self.look,
            is_there=lambda device: self.device_there,
            clock=lambda: 0.0,
        )
        (place / "sessions").mkdir()

    def healthy(self, **fields: int) -> Facts:
        return Facts(mount=entry(os.stat(self.place).st_dev), device_bytes=1 << 40, room=room(**fields))

    def look(self, mount_point: str, state_dir: str, *, is_mount: bool) -> Facts:
        assert self.answers.wait(60)
        return self.facts

    async def up(self, nursery: trio.Nursery) -> Storage:
        await self.storage.bring_up()
        self.storage.attach(self.audit, on_back=self.back.append)
        await nursery.start(self.storage.serve)
        await settle_threads()
        return self.storage

    async def next_look(self) -> None:
        jump(LOOK_S)
        await settle_threads()

    def published(self, name: str) -> list[dict[str, Any]]:
        return [event.params for event in self.events.published if event.name == name]


GONE = Facts(mount=None, device_bytes=None, room=None)


@in_trio
async def test_a_directory_needs_nobody_and_is_ok(tmp_path: Path) -> None:
    house = House(tmp_path, StorageConfig(kind="directory"))
    await house.storage.bring_up()
    usage = await house.storage.usage()
    assert (usage.kind, usage.state, usage.device, usage.quota) == ("directory", "ok", None, "watched")
    assert house.disk.trace == []
    assert house.told == [None]
    house.storage.refuse_if_unusable()


@in_trio
async def test_a_disk_is_brought_up_owned_and_what_was_done_is_recorded_afterwards(tmp_path: Path) -> None:
    steps = (
        disk.DiskStep(name="mkfs", took_s=0.1, detail="big", changed=True),
        disk.DiskStep(name="mount", took_s=0.1),
    )
    house = House(tmp_path, StorageConfig(kind="disk", wait_s=3, label="mine"), steps=steps, quota=True)
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        assert house.disk.trace == ["bring up", "own"]
        ask = house.disk.asked[0]
        assert (ask.kind, ask.label, ask.wait_s) == ("disk", "mine", 3)
        assert house.audit.records == [
            ("storage.change", {"device": "/dev/vdb", "action": "mkfs", "message": "big"}),
        ]
        usage = await storage.usage()
        assert (usage.kind, usage.device, usage.quota) == ("disk", "/dev/vdb", "project")
        nursery.cancel_scope.cancel()


@in_trio
async def test_without_a_disk_auto_takes_the_directory_and_says_so(tmp_path: Path) -> None:
    house = House(tmp_path, StorageConfig(), state="absent", none_there=True, reason="none is blank")
    await house.storage.bring_up()
    assert house.disk.asked[0].wait_s == 0
    assert (house.storage.kind, house.storage.state) == ("directory", "ok")
    assert house.told[-1] is not None
    assert "no session disk" in house.told[-1]
    house.storage.refuse_if_unusable()


@pytest.mark.parametrize(("kind", "none_there"), [("disk", True), ("auto", False)])
@in_trio
async def test_a_disk_that_was_wanted_or_is_refused_leaves_no_place_for_sessions(
    tmp_path: Path, kind: Any, none_there: bool
) -> None:
    house = House(tmp_path, StorageConfig(kind=kind), state="absent", none_there=none_there, reason="xfs signature")
    await house.storage.bring_up()
    assert house.storage.state == "absent"
    with pytest.raises(Unavailable, match="xfs signature"):
        house.storage.refuse_if_unusable()
    # Records of the day still have a place.
    assert (tmp_path / "sessions" / ".coworkd").is_dir()
    assert "own" not in house.disk.trace


@in_trio
async def test_a_repair_is_a_note_with_its_report_kept(tmp_path: Path) -> None:
    house = House(tmp_path, reason="it was repaired", report="fixed")
    await house.storage.bring_up()
    assert house.storage.state == "ok"
    assert house.told == ["it was repaired"]
    house.storage.refuse_if_unusable()
    (kept,) = (tmp_path / "sessions/.coworkd/fsck").iterdir()
    assert kept.read_text() == "fixed"


@in_trio
async def test_nobody_to_mount_a_disk_ends_the_start(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.disk.broken = Unavailable("no worker")
    with pytest.raises(Unavailable, match="no worker"):
        await house.storage.bring_up()


@in_trio
async def test_one_that_becomes_read_only_is_degraded_until_it_is_not(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        house.facts = Facts(
            mount=entry(os.stat(tmp_path).st_dev, "ro"),
            device_bytes=1 << 40,
            room=room(),
            error="Read-only file system",
        )
        await house.next_look()
        assert storage.state == "degraded"
        with pytest.raises(Unavailable, match="read-only"):
            storage.refuse_if_unusable()
        await house.next_look()
        house.facts = house.healthy()
        await house.next_look()
        storage.refuse_if_unusable()
        assert [event["state"] for event in house.published("storage.state")] == ["ok", "degraded", "ok"]
        assert [fields["action"] for _, fields in house.audit.records] == ["degraded", "recovered"]
        assert house.told[-1] is None
        assert house.back == []
        nursery.cancel_scope.cancel()


@in_trio
async def test_one_that_was_only_unmounted_is_back_at_once(tmp_path: Path) -> None:
    """A launcher that ended has done it. What is open on it is coworkd's own, and would keep it from being found free for ever."""
    house = House(tmp_path)
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        house.facts, house.device_there = GONE, True
        await house.next_look()
        assert storage.state == "degraded"
        assert house.back == ["the session disk was unmounted, its device is there"]
        nursery.cancel_scope.cancel()


@in_trio
async def test_one_that_vanished_and_is_back_is_told_once_it_can_be_found(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        house.facts = GONE
        await house.next_look()
        assert storage.state == "degraded"
        assert house.back == []
        house.disk.found = disk.DiskFound(id=1, found=True, detail="vdb: ours")
        await house.next_look()
        assert house.back == ["the session disk is back: vdb: ours"]
        nursery.cancel_scope.cancel()


@in_trio
async def test_what_was_refused_at_the_start_is_not_tried_again_and_again(tmp_path: Path) -> None:
    house = House(tmp_path, state="absent", reason="mkfs failed")
    house.disk.found = disk.DiskFound(id=1, found=True)
    async with trio.open_nursery() as nursery:
        await house.up(nursery)
        await house.next_look()
        assert house.back == []
        house.disk.found = disk.DiskFound(id=1, found=False)
        await house.next_look()
        house.disk.found = disk.DiskFound(id=1, found=True)
        await house.next_look()
        assert len(house.back) == 1
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_launcher_that_is_away_does_not_end_the_watch(tmp_path: Path) -> None:
    house = House(tmp_path, state="absent", reason="no")
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        house.disk.broken = Unavailable("the launcher is away")
        await house.next_look()
        assert storage.state == "absent"
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_disk_that_cannot_be_written_to_about_itself_is_watched_all_the_same(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.audit.full = {"storage.change"}
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        house.facts = GONE
        await house.next_look()
        assert storage.state == "degraded"
        nursery.cancel_scope.cancel()


@in_trio
async def test_pressure_is_told_at_each_mark_and_once(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        for free in (100, 100, 60, 10, 30, 400):
            house.facts = house.healthy(free_bytes=free)
            await house.next_look()
        assert [event["mark"] for event in house.published("storage.pressure")] == [80, 90, 95, 0]
        assert storage.mark == 0
        nursery.cancel_scope.cancel()


@in_trio
async def test_much_that_was_deleted_is_trimmed_at_once_and_little_is_not(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        storage.freed(FREED_TRIM_BYTES - 1)
        await settle_threads()
        assert "trim" not in house.disk.trace
        storage.freed(1)
        await settle_threads()
        assert house.disk.trace.count("trim") == 1
        storage.freed(1)
        await settle_threads()
        assert house.disk.trace.count("trim") == 1
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_disk_is_trimmed_every_day_or_never(tmp_path: Path) -> None:
    for number, (trim_s, times) in enumerate(((100.0, 2), (0.0, 0))):
        (tmp_path / str(number)).mkdir()
        house = House(tmp_path / str(number), StorageConfig(kind="disk", trim_s=trim_s))
        async with trio.open_nursery() as nursery:
            await house.up(nursery)
            for _ in range(2):
                jump(100)
                await settle_threads()
            assert house.disk.trace.count("trim") == times
            nursery.cancel_scope.cancel()


@in_trio
async def test_trim_and_grow_are_recorded_first_and_done_by_the_worker(tmp_path: Path) -> None:
    house = House(tmp_path, kind="loop")
    async with trio.open_nursery() as nursery:
        storage = await house.up(nursery)
        assert (await storage.trim(calls_storage.StorageTrim())).trimmed_bytes == 4096
        assert (await storage.grow(calls_storage.StorageGrow(size=9))).after_bytes == 2
        assert house.disk.trace[-2:] == ["trim", "grow 9"]
        assert [fields["action"] for _, fields in house.audit.records] == ["trim", "grow"]
        house.audit.full = {"storage.change"}
        with pytest.raises(DiskFailed):
            await storage.grow(calls_storage.StorageGrow())
        assert house.disk.trace[-1] == "grow 9"
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_directory_is_neither_trimmed_nor_grown_and_a_disk_grows_on_the_host(tmp_path: Path) -> None:
    directory = House(tmp_path, StorageConfig(kind="directory"))
    await directory.storage.bring_up()
    with pytest.raises(InvalidState, match="no disk to be trimmed"):
        await directory.storage.trim(calls_storage.StorageTrim())
    with pytest.raises(InvalidState, match="no disk to be grown"):
        await directory.storage.grow(calls_storage.StorageGrow())
    (tmp_path / "other").mkdir()
    house = House(tmp_path / "other")
    await house.storage.bring_up()
    with pytest.raises(InvalidState, match="grows on the host"):
        await house.storage.grow(calls_storage.StorageGrow(size=1))


@in_trio
async def test_one_that_does_not_answer_is_failing_and_is_asked_again_only_by_the_same_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    await house.storage.bring_up()
    house.answers.clear()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.storage.look_now)
            await trio.testing.wait_all_tasks_blocked()
            jump(LOOK_DEADLINE_S)
        scope.cancel()
    with pytest.raises(Unavailable, match="has not answered"):
        house.storage.refuse_if_unusable()
    house.answers.set()
    await house.storage.look_now()
    assert house.storage.state == "ok"
