"""The thread of the audit log: one piece of work at a time, and nobody told of a record that is not there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from coworkd.auditlog import RotationLimits, admit
from coworkd.model.errors import DiskFailed, Unavailable
from coworkd.services.audit_files import AuditFiles, DiskCalls, Entry
from coworkd.services.audit_thread import AuditThread, Waiting


class GatedDisk(DiskCalls):
    """While `gate` is closed a sync waits in its thread; `error` is what syncs raise."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.syncs = 0
        self.error: Exception | None = None

    def fdatasync(self, fd: int) -> None:
        self.syncs += 1
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error


@contextmanager
def open_thread(directory: Path, disk: DiskCalls, settled: Callable[[], None] = lambda: None) -> Iterator[AuditThread]:
    files = AuditFiles(directory, boot_id="boot", limits=RotationLimits(), disk=disk)
    files.start(at=0.0, version="0")
    thread = AuditThread(files, settled=settled)
    yield thread
    thread.close()
    files.close()


def waiting(session: str = "demo") -> Waiting:
    return Waiting([Entry(at=1.0, kind="session.pause", fields=admit("session.pause", {"session": session}))])


async def wait_until(condition: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0)


def test_the_disk_begins_before_anybody_waits(tmp_path: Path) -> None:
    async def main() -> None:
        disk = GatedDisk()
        with open_thread(tmp_path, disk) as thread:
            disk.gate.clear()
            before = disk.syncs
            record = waiting()
            thread.append(record)
            await wait_until(lambda: disk.syncs == before + 1)
            assert thread.records == 0
            disk.gate.set()
            await record.durable()
            assert thread.records == thread.sync_times.times == 1

    trio.run(main)


def test_a_snapshot_is_taken_between_two_batches(tmp_path: Path) -> None:
    async def main() -> None:
        disk = GatedDisk()
        with open_thread(tmp_path, disk) as thread:
            disk.gate.clear()
            first, second = waiting(), waiting()
            thread.append(first)
            thread.append(second)
            seen = []

            async def look() -> None:
                snapshot = await thread.snapshot()
                seen.append(snapshot.head.seq)
                snapshot.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await trio.testing.wait_all_tasks_blocked()
                disk.gate.set()
            await second.durable()
            assert seen == [2]  # behind `audit.opened` and the first, before the second

    trio.run(main)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("a fault of ours")])
def test_what_is_not_on_the_disk_is_nobodys_record(tmp_path: Path, error: Exception) -> None:
    async def main() -> None:
        told: list[bool] = []
        disk = GatedDisk()
        with open_thread(tmp_path, disk, lambda: told.append(True)) as thread:
            disk.error = error
            record = waiting()
            thread.append(record)
            with pytest.raises(DiskFailed):
                await record.durable()
            assert (thread.records, told) == (0, [True])

    trio.run(main)


def test_without_a_thread_nothing_is_recorded_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with open_thread(tmp_path, GatedDisk()) as thread:
            monkeypatch.setattr(threading.Thread, "start", refuse)
            record = waiting()
            thread.append(record)
            with pytest.raises(Unavailable):
                await record.durable()
            with pytest.raises(Unavailable):
                await thread.snapshot()

    trio.run(main)


def test_who_asked_is_told_in_the_thread_once_it_is_durable_and_not_where_it_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[tuple[int, int]] = []
        disk = GatedDisk()
        with open_thread(tmp_path, disk) as thread:

            def then() -> None:
                told.append((threading.get_ident(), disk.syncs))

            record = Waiting(waiting().entries, then)
            before = disk.syncs
            thread.append(record)
            await record.durable()
            assert [syncs for _, syncs in told] == [before + 1]
            assert told[0][0] != threading.get_ident()
            disk.error = OSError(5, "Input/output error")
            refused = Waiting(waiting().entries, then)
            thread.append(refused)
            with pytest.raises(DiskFailed):
                await refused.durable()
            assert len(told) == 1

    trio.run(main)


def test_a_record_is_durable_whatever_who_asked_makes_of_it(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("a fault of who asked")

    async def main() -> None:
        with open_thread(tmp_path, GatedDisk()) as thread:
            record = Waiting(waiting().entries, fail)
            thread.append(record)
            await record.durable()
            assert thread.records == 1

    trio.run(main)


def test_its_thread_is_one_until_it_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        threads: list[threading.Thread] = []
        with open_thread(tmp_path, GatedDisk()) as thread:
            for _ in range(2):
                record = Waiting(waiting().entries, lambda: threads.append(threading.current_thread()))
                thread.append(record)
                await record.durable()
        assert threads[0] is threads[1]
        threads[0].join(60)
        assert not threads[0].is_alive()

    trio.run(main)


def test_work_that_ends_behind_the_run_is_told_to_nobody_and_breaks_nothing(tmp_path: Path) -> None:
    disk = GatedDisk()
    threads: list[threading.Thread] = []
    done = threading.Event()

    def then() -> None:
        threads.append(threading.current_thread())
        done.set()

    async def leave(thread: AuditThread) -> None:
        disk.gate.clear()
        thread.append(Waiting(waiting().entries, then))

    with open_thread(tmp_path, disk) as thread:
        trio.run(leave, thread)
        disk.gate.set()
        assert done.wait(60)
    threads[0].join(60)  # that it raised would fail this test
    assert not threads[0].is_alive()
