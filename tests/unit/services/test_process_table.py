"""`services.process_table`: ids, bounds, and who has to go."""

from __future__ import annotations

import pytest

from coworkd.config import FinishedConfig
from coworkd.model.errors import AlreadyExists, LimitExceeded, NotFound
from coworkd.services.process_table import ProcessTable
from tests.unit.services.process_house import in_trio
from tests.unit.services.test_process_live import make_process


def make_table(*, running_limit: int = 2, keep_count: int = 10) -> ProcessTable:
    return ProcessTable(
        running_limit=running_limit,
        finished=FinishedConfig(keep_count=keep_count),
        awaited_bytes=0,
        awaited=lambda process: False,
    )


def test_reserve_makes_ids_up_that_tell_one_shots() -> None:
    table = make_table()
    ids = {table.reserve(None, one_shot=False) for _ in range(20)}
    assert len(ids) == 20
    assert not any(id.startswith("run.") for id in ids)
    assert table.reserve(None, one_shot=True).startswith("run.")


def test_reserve_refuses_an_id_in_use() -> None:
    table = make_table()
    table.add(make_process("one"))
    with pytest.raises(AlreadyExists):
        table.reserve("one", one_shot=False)
    assert table.reserve("two", one_shot=False) == "two"


@in_trio
async def test_reserve_counts_what_runs_and_not_what_is_kept() -> None:
    table = make_table()
    one, two = make_process("one"), make_process("two")
    table.add(one)
    table.add(two)
    with pytest.raises(LimitExceeded) as caught:
        table.reserve(None, one_shot=False)
    assert caught.value.details["limit"] == 2
    table.ended(one)
    assert table.reserve("three", one_shot=False) == "three"


@in_trio
async def test_ended_tells_who_has_to_go_for_it() -> None:
    table = make_table(keep_count=1)
    one, two = make_process("one"), make_process("two")
    table.add(one)
    table.add(two)
    assert table.ended(one) == []
    assert table.ended(two) == [one]
    assert table.remove(one)
    assert not table.remove(one)
    assert table.surplus() == []


@in_trio
async def test_ended_keeps_no_one_shot() -> None:
    table = make_table(keep_count=1)
    kept, answered = make_process("kept"), make_process("run.x", one_shot=True)
    table.add(kept)
    table.add(answered)
    table.ended(kept)
    assert table.ended(answered) == []


@in_trio
async def test_of_those_that_are_kept_none_is_looked_at_for_its_ancestors() -> None:
    table = make_table()
    ended, answered, runs = make_process("ended"), make_process("run.x", one_shot=True), make_process("runs")
    ended.monitor_pid = answered.monitor_pid = runs.monitor_pid = 10
    for process in (ended, answered, runs):
        table.add(process)
    assert table.find_by_ancestor(10) is ended
    table.ended(ended)
    assert table.find_by_ancestor(10) is answered
    table.remove(answered)
    assert table.find_by_ancestor(10) is runs
    runs.init_pid, runs.pid = 11, 12
    assert table.find_by_ancestor(11) is table.find_by_ancestor(12) is runs
    runs.over.set()
    assert table.find_by_ancestor(10) is None


def test_find_refuses_what_is_not_there() -> None:
    table = make_table()
    table.add(make_process("one"))
    assert table.find("one").id == "one"
    with pytest.raises(NotFound):
        table.find("two")


def test_state_counts_names_every_state() -> None:
    table = make_table()
    table.add(make_process("one"))
    assert table.state_counts() == {"starting": 1, "running": 0, "exited": 0}
