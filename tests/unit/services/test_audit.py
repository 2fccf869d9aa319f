"""The audit service: durable records, group commit, cancellation, answers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from coworkd.auditlog import RotationLimits
from coworkd.model.calls import AuditTail
from coworkd.model.errors import DiskFailed, InternalError, InvalidParams, InvalidState, LimitExceeded, Unavailable
from coworkd.services import audit, audit_thread
from coworkd.services.audit import AuditLog
from coworkd.services.audit_files import DiskCalls


class CountingDisk(DiskCalls):
    """Counts syncs; while `gate` is closed the first of them waits in its thread."""

    def __init__(self) -> None:
        self.syncs = 0
        self.refuse = 0
        self.refuse_at = 0
        """The number of a sync."""
        self.gate = threading.Event()
        self.gate.set()

    def fdatasync(self, fd: int) -> None:
        self.syncs += 1
        assert self.gate.wait(60)
        if self.refuse or self.syncs == self.refuse_at:
            self.refuse = max(0, self.refuse - 1)
            raise OSError(5, "Input/output error")


def open_log(directory: Path, disk: DiskCalls | None = None, **more: Any) -> AuditLog:
    return AuditLog.open(directory, boot_id="boot", version="0", disk=disk or CountingDisk(), **more)


async def wait_until(condition: Any) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0)


def test_record_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        await log.record("session.create", {"session": "demo", "uid": 1001})
        assert b'"session":"demo"' in next(tmp_path.glob("audit-*")).read_bytes()
        assert (log.records, log.head[0]) == (1, 2)
        assert log.sync_times.times == 1
        assert 0 < log.sync_times.took_s == log.sync_times.most_s
        log.close()

    trio.run(main)


def test_concurrent_records_share_syncs_and_stay_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        disk = CountingDisk()
        log = open_log(tmp_path, disk)
        before = disk.syncs
        disk.gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.record, "session.pause", {"session": "first"})
            await wait_until(lambda: disk.syncs == before + 1)
            for number in range(100):
                nursery.start_soon(log.record, "session.pause", {"session": f"s{number}"})
            await wait_until(lambda: (log._thread.queued) == 100)
            disk.gate.set()
        assert disk.syncs == before + 2
        verified = await log.verify()
        assert (verified.ok, verified.records, log.records) == (True, 102, 101)
        log.close()

    trio.run(main)


def test_a_cancelled_record_that_was_begun_is_finished(tmp_path: Path) -> None:
    async def main() -> None:
        disk = CountingDisk()
        log = open_log(tmp_path, disk)
        disk.gate.clear()
        began = disk.syncs
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.record, "session.pause", {"session": "one"})
                await wait_until(lambda: disk.syncs > began)
                nursery.start_soon(log.record, "session.pause", {"session": "two"})
                await wait_until(lambda: log._thread.queued)
                scope.cancel()
                disk.gate.set()
        assert log.records == 2
        assert (await log.verify()).ok
        log.close()

    trio.run(main)


def test_a_record_cancelled_before_it_began_is_not_written(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        with trio.CancelScope() as scope:
            scope.cancel()
            await log.record("session.pause", {"session": "one"})
        assert scope.cancelled_caught
        assert log.records == 0
        log.close()

    trio.run(main)


def test_a_refused_batch_raises_for_each_and_the_next_succeeds(tmp_path: Path) -> None:
    async def main() -> None:
        disk = CountingDisk()
        log = open_log(tmp_path, disk)
        failures = []

        async def attempt() -> None:
            try:
                await log.record("session.pause", {"session": "lost"})
            except DiskFailed as error:
                failures.append(error)

        disk.gate.clear()
        disk.refuse = 1
        began = disk.syncs
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)
            await wait_until(lambda: disk.syncs > began)
            disk.gate.set()
        assert len(failures) == 1
        await log.record("session.pause", {"session": "kept"})
        assert (await log.verify()).ok
        assert log.records == 1
        log.close()

    trio.run(main)


def test_records_that_belong_together_are_all_in_the_log_or_none(tmp_path: Path) -> None:
    async def main() -> None:
        disk = CountingDisk()
        log = open_log(tmp_path, disk)
        together = [("session.pause", {"session": f"s{number}"}) for number in range(audit_thread.BATCH_LIMIT - 1)]

        async def refused() -> None:
            with pytest.raises(DiskFailed):
                await log.record_all(together)

        disk.gate.clear()
        before = disk.syncs
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.record_all, together[:1])
            await wait_until(lambda: disk.syncs == before + 1)
            nursery.start_soon(log.record_all, together[:2])
            await wait_until(lambda: log._thread.queued)
            nursery.start_soon(refused)
            await wait_until(lambda: log._thread.queued > 1)
            disk.refuse_at = before + 3
            disk.gate.set()
        await log.record_all([])
        found = await log.verify()
        assert (found.ok, found.records, log.records) == (True, 1 + 1 + 2, 1 + 2)
        log.close()

    trio.run(main)


def test_a_full_queue_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(audit_thread, "QUEUE_LIMIT", 1)
        disk = CountingDisk()
        log = open_log(tmp_path, disk)
        disk.gate.clear()
        began = disk.syncs
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.record, "session.pause", {})
            await wait_until(lambda: disk.syncs > began)
            nursery.start_soon(log.record, "session.pause", {})
            await wait_until(lambda: log._thread.queued)
            with pytest.raises(LimitExceeded):
                await log.record("session.pause", {})
            disk.gate.set()
        log.close()

    trio.run(main)


def test_what_is_not_listed_is_refused_and_nothing_written(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        with pytest.raises(InternalError):
            await log.record("process.start", {"env": {"TOKEN": "s3cret"}})
        assert log.head[0] == 1
        log.close()

    trio.run(main)


def test_tail_answers_the_newest_of_a_session(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path, limits=RotationLimits(file_bytes=500, total_bytes=1 << 20))
        for number in range(10):
            await log.record("process.signal", {"session": "ab"[number % 2], "signal": number})
        answer = await log.tail(AuditTail(limit=3, session="b"))
        assert [record["signal"] for record in answer.records] == [5, 7, 9]
        assert not answer.truncated
        log.close()

    trio.run(main)


@pytest.mark.parametrize("limit", [0, -1, audit.TAIL_LIMIT + 1])
def test_tail_refuses_a_limit_out_of_bounds(tmp_path: Path, limit: int) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        with pytest.raises(InvalidParams):
            await log.tail(AuditTail(limit=limit))
        log.close()

    trio.run(main)


def test_verify_tells_a_change_under_a_running_log(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        await log.record("session.pause", {"session": "one"})
        path = next(tmp_path.glob("audit-*"))
        path.write_bytes(path.read_bytes().replace(b'"one"', b'"two"'))
        verified = await log.verify()
        assert not verified.ok
        assert str(verified.problem).startswith(f"{path.name} line 2: ")
        log.close()

    trio.run(main)


def test_verify_tells_an_end_that_was_cut_under_a_running_log(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        await log.record("session.pause", {"session": "one"})
        path = next(tmp_path.glob("audit-*"))
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        verified = await log.verify()
        assert "its end was cut off" in str(verified.problem)
        log.close()

    trio.run(main)


def test_degraded_is_told_once_and_taken_back(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[str | None] = []
        log = open_log(tmp_path, on_degraded=told.append)
        log._files.problems["rotation"] = "cannot be rotated"
        log._tell_degraded()
        log._tell_degraded()
        await log.record("session.pause", {})
        assert told == ["cannot be rotated", None]
        log.close()

    trio.run(main)


def test_a_second_log_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        with pytest.raises(InvalidState):
            open_log(tmp_path)
        log.close()

    trio.run(main)


def test_a_closed_log_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_log(tmp_path)
        log.close()
        log.close()
        with pytest.raises(Unavailable):
            await log.record("session.pause", {})
        with pytest.raises(Unavailable):
            await log.verify()

    trio.run(main)
