from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.calls import CloseStdin, Mutating, ProcessRun
from coworkd.model.errors import InvalidParams, NotFound, Unavailable
from coworkd.model.names import OsBytes
from coworkd.rpc.replay import ENTRY_BYTES, KEEP_S, Replay
from tests.unit.rpc.fakes import run


class Counter:
    """A call that counts how often it was done."""

    def __init__(self, size: int = 0) -> None:
        self.done = 0
        self._size = size

    async def __call__(self) -> dict[str, Any]:
        self.done += 1
        await trio.sleep(1)
        return {"done": self.done, "data": b"x" * self._size}


def once(request_id: str) -> CloseStdin:
    return CloseStdin(process="p", request_id=request_id)


def test_the_same_id_gets_the_first_answer_and_is_done_once() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        answers = [await replay.call("m", once("a"), call) for _ in range(3)]
        assert answers == [{"done": 1, "data": b""}] * 3
        assert call.done == 1

    run(main)


def test_ids_count_per_method() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        await replay.call("m", once("a"), call)
        await replay.call("n", once("a"), call)
        assert call.done == 2

    run(main)


def test_repetitions_wait_for_the_call_that_runs() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await replay.call("m", once("a"), call))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert answers == [{"done": 1, "data": b""}] * 5
        assert call.done == 1

    run(main)


def test_a_repetition_that_waits_is_known_until_it_goes() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replay.call, "m", once("a"), call)
            await trio.testing.wait_all_tasks_blocked()
            assert not replay.asked_again("m", "a")
            with trio.move_on_after(0.5):
                await replay.call("m", once("a"), call)
            assert not replay.asked_again("m", "a")
            nursery.start_soon(replay.call, "m", once("a"), call)
            await trio.testing.wait_all_tasks_blocked()
            assert replay.asked_again("m", "a")
        assert not replay.asked_again("m", "a")
        assert call.done == 1

    run(main)


def test_errors_are_repeated_too() -> None:
    async def main() -> None:
        replay = Replay()
        done = []

        async def fail() -> Any:
            done.append(1)
            raise NotFound("no process p", key="process")

        for _ in range(2):
            with pytest.raises(NotFound, match="no process p") as caught:
                await replay.call("m", once("a"), fail)
            assert caught.value.details == {"key": "process"}
        assert len(done) == 1

    run(main)


def test_other_parameters_under_the_same_id_are_refused() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        await replay.call("m", once("a"), call)
        with pytest.raises(InvalidParams, match="other parameters"):
            await replay.call("m", CloseStdin(process="q", request_id="a"), call)

    run(main)


def test_order_of_keys_makes_no_other_parameters() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        for env in ({"A": "1", "B": "2"}, {"B": "2", "A": "1"}):
            params = ProcessRun(session="s", argv=[OsBytes(b"\xff")], env=env, request_id="a")
            await replay.call("m", params, call)
        assert call.done == 1

    run(main)


def test_an_answer_is_kept_for_ten_minutes() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        await replay.call("m", once("a"), call)
        await trio.sleep(KEEP_S - 1)
        await replay.call("m", once("a"), call)
        assert call.done == 1
        await trio.sleep(2)
        await replay.call("m", once("a"), call)
        assert call.done == 2

    run(main)


def test_what_is_kept_is_bounded_oldest_first() -> None:
    async def main() -> None:
        replay, call = Replay(keep_bytes=3 * (ENTRY_BYTES + 1100)), Counter(1000)
        for name in "abcd":
            await replay.call("m", once(name), call)
        await replay.call("m", once("d"), call)
        assert call.done == 4
        with pytest.raises(Unavailable, match="done and answered"):
            await replay.call("m", once("a"), call)
        assert call.done == 4

    run(main)


def test_an_answer_takes_no_more_memory_than_is_counted() -> None:
    async def answer() -> dict[str, Any]:
        return {}

    async def main() -> None:
        replay = Replay()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(2000):
                await replay.call("m", once(f"{number:032}"), answer)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (after - before) / 2000 <= ENTRY_BYTES

    run(main)


def test_an_answer_that_went_is_forgotten_in_its_time_and_where_there_is_no_room_for_that() -> None:
    async def main() -> None:
        replay, call = Replay(keep_bytes=4 * (ENTRY_BYTES + 300)), Counter(1000)
        for number in range(8):
            await replay.call("m", once(str(number)), call)
        assert call.done == 8
        assert await replay.call("m", once("7"), call) == {"done": 8, "data": b"x" * 1000}
        with pytest.raises(Unavailable):
            await replay.call("m", once("6"), call)
        await replay.call("m", once("0"), call)
        assert call.done == 9
        await trio.sleep(KEEP_S + 1)
        await replay.call("m", once("7"), call)
        assert call.done == 10

    run(main)


@pytest.mark.parametrize("size", [0, 1000])
def test_however_many_there_were_half_of_the_room_has_the_newest_answers_whole(size: int) -> None:
    async def main() -> None:
        room = 100 * (ENTRY_BYTES + size)
        replay, call = Replay(keep_bytes=room), Counter(size)
        for number in range(500):
            await replay.call("m", once(str(number)), call)
        newest = room // 2 // (ENTRY_BYTES + size + 50)
        for number in range(500 - newest, 500):
            assert (await replay.call("m", once(str(number)), call))["done"] == number + 1
        with pytest.raises(Unavailable, match="done and answered"):
            await replay.call("m", once(str(500 - 2 * newest)), call)
        assert call.done == 500

    run(main)


def test_a_call_that_was_cancelled_leaves_nothing_and_waiters_are_told() -> None:
    async def main() -> None:
        replay, call = Replay(), Counter()
        told = []

        async def wait() -> None:
            with pytest.raises(Unavailable):
                await replay.call("m", once("a"), call)
            told.append(True)

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as first:
                nursery.start_soon(wait)

                async def cancel() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    first.cancel()

                nursery.start_soon(cancel)
                await replay.call("m", once("a"), call)
        assert told == [True]
        await replay.call("m", once("a"), call)
        assert call.done == 2

    run(main)


@pytest.mark.parametrize("request_id", ["", "x" * 129])
def test_odd_ids_are_refused(request_id: str) -> None:
    async def main() -> None:
        with pytest.raises(InvalidParams, match="1 to 128"):
            await Replay().call("m", Mutating(request_id=request_id), Counter())

    run(main)
