"""Records of what went out: written in order, and never waited for."""

from __future__ import annotations

import json
from pathlib import Path

import trio
import trio.testing

from host_stub.egress_records import BOUND, EgressRecords
from host_stub.logs import BoundedLog


def write(path: Path, count: int) -> list[dict[str, object]]:
    async def main() -> None:
        log = BoundedLog(path, as_note=False)
        records = EgressRecords(log)
        for number in range(count):
            records.tell(number=number, nothing=None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(records.serve)
            await trio.testing.wait_all_tasks_blocked()
            records.tell(number=-1)
            nursery.cancel_scope.cancel()
        await records.flush()
        log.close()

    trio.run(main)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_json_lines_without_what_is_not_known(tmp_path: Path) -> None:
    assert write(tmp_path / "egress.log", 3) == [{"number": 0}, {"number": 1}, {"number": 2}, {"number": -1}]


def test_what_is_too_much_is_counted(tmp_path: Path) -> None:
    records = write(tmp_path / "egress.log", BOUND + 7)
    assert len(records) == BOUND + 2
    assert {"event": "lost", "records": 7} in records


def test_what_was_taken_out_is_written_though_it_is_cancelled_then(tmp_path: Path) -> None:
    path = tmp_path / "egress.log"

    async def main() -> None:
        log = BoundedLog(path, as_note=False)
        records = EgressRecords(log)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(records.serve)
            await trio.testing.wait_all_tasks_blocked()
            records.tell(number=1)  # handed to who waits, at once
            nursery.cancel_scope.cancel()
        await records.flush()
        log.close()

    trio.run(main)
    assert path.read_text() == '{"number":1}\n'


def test_without_a_log_nothing_is_kept() -> None:
    async def main() -> None:
        records = EgressRecords(None)
        for number in range(BOUND * 2):
            records.tell(number=number)

    trio.run(main)
