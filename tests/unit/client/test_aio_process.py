"""The trio process handle."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from coworkd.client.aio import AsyncClient
from coworkd.client.aio_process import AsyncProcess
from coworkd.client.inbox import Output
from coworkd.model.errors import InvalidState, LimitExceeded, OutOfRange, Unavailable
from tests.unit.client.conftest import FakeGuest, Fault
from tests.unit.client.test_aio import run


async def start(client: AsyncClient, guest: FakeGuest, *events: Any) -> AsyncProcess:
    def play(_: dict[str, Any]) -> None:
        for event in events:
            event()

    guest.after["process.start"] = play
    return await client.start("work", ["x"], stdin=True)


def test_iteration_gives_all_output_and_ends_behind_the_exit(guest: FakeGuest) -> None:
    async def body(client: AsyncClient) -> None:
        process = await start(
            client, guest, lambda: guest.exited(stdout=2), lambda: guest.output("stdout", 0, b"ab", True)
        )
        assert [piece async for piece in process] == [Output("stdout", 0, b"ab", True)]
        assert process.finished
        assert (await process.wait()).exit.code == 0

    run(guest, body)


def test_two_that_read_one_process_both_hear_of_its_end(guest: FakeGuest) -> None:
    async def body(client: AsyncClient) -> None:
        process = await start(client, guest)
        taken: list[bytes] = []

        async def read() -> None:
            async for piece in process:
                taken.append(piece.data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            guest.output("stdout", 0, b"a")
            guest.exited(stdout=2)
            guest.output("stdout", 1, b"b", True)
        assert taken == [b"a", b"b"]

    run(guest, body)


def test_a_gap_is_told_and_reading_goes_on_behind_it(guest: FakeGuest) -> None:
    async def body(client: AsyncClient) -> None:
        process = await start(client, guest, lambda: guest.output("stdout", 5, b"f"))
        with pytest.raises(OutOfRange):
            await process.read()
        assert await process.read() == Output("stdout", 5, b"f", False)

    run(guest, body)


def test_a_lost_link_is_an_error_and_the_offsets_are_known(guest: FakeGuest) -> None:
    async def body(client: AsyncClient) -> None:
        process = await start(client, guest, lambda: guest.output("stdout", 0, b"a"), guest.hang_up)
        await process.read()
        with pytest.raises(Unavailable, match="attach"):
            await process.read()
        assert process.offsets() == {"stdout": 1, "stderr": 0}

    run(guest, body)


def test_a_parked_handle_attaches_again_and_what_is_gone_is_a_gap(guest: FakeGuest) -> None:
    def refuse_offsets(params: dict[str, Any]) -> Any:
        if "stdout" in params:
            raise guest_fault
        return {"streams": {"stdout": {"first": 3, "end": 4}, "stderr": {"first": 0, "end": 0}}}

    guest_fault = Fault("OUT_OF_RANGE", "gone", stream="stdout", first=3, end=4)
    guest.answers["process.attach"] = refuse_offsets

    def speak_first(_: dict[str, Any]) -> dict[str, float]:
        guest.output("stdout", 0, b"a")
        guest.output("stdout", 1, b"b")
        return {"time": 1.0, "monotonic": 1.0}

    guest.answers["ping"] = speak_first

    async def body(client: AsyncClient) -> None:
        process = await start(client, guest)
        assert process._inbox is not None
        process._inbox._bound_bytes = 1
        await client.ping()
        assert await process.read() == Output("stdout", 0, b"a", False)
        assert await process.read() == Output("stdout", 1, b"b", False)
        guest.after["process.attach"] = lambda params: None if "stdout" in params else guest.output("stdout", 3, b"d")
        with pytest.raises(OutOfRange) as caught:
            await process.read()
        assert (caught.value.details["expected"], caught.value.details["offset"]) == (2, 3)
        assert await process.read() == Output("stdout", 3, b"d", False)

    run(guest, body)
    assert guest.called("process.attach") == [
        {"process": "p1", "stdout": 2, "stderr": 0},
        {"process": "p1", "stderr": 0},
    ]


def test_communicate_writes_and_reads_at_once(guest: FakeGuest) -> None:
    seen = bytearray()

    def echo(params: dict[str, Any]) -> dict[str, int]:
        piece = params["data"][:100_000]
        guest.output("stdout", len(seen), piece)
        seen.extend(piece)
        return {"offset": len(seen)}

    guest.answers["process.write_stdin"] = echo
    guest.answers["process.close_stdin"] = lambda _: {}
    guest.after["process.close_stdin"] = lambda _: guest.exited(stdout=len(seen))
    data = bytes(range(256)) * 2000

    async def body(client: AsyncClient) -> None:
        collected = await (await start(client, guest)).communicate(data)
        assert collected.streams == {"stdout": data}

    run(guest, body)


def test_communicate_raises_the_error_itself(guest: FakeGuest) -> None:
    guest.answers["process.write_stdin"] = lambda params: {"offset": params["offset"] + len(params["data"])}
    guest.answers["process.close_stdin"] = lambda _: {}
    guest.after["process.close_stdin"] = lambda _: guest.output("stdout", 0, b"more than asked for")

    async def body(client: AsyncClient) -> None:
        with pytest.raises(LimitExceeded):
            await (await start(client, guest)).communicate(b"x", limit_bytes=3)

    run(guest, body)


def test_communicate_tells_a_lost_link_once(guest: FakeGuest) -> None:
    guest.answers["process.write_stdin"] = lambda params: guest.hang_up()

    async def body(client: AsyncClient) -> None:
        with pytest.raises(Unavailable):
            await (await start(client, guest)).communicate(b"x")

    run(guest, body)


def test_leaving_the_block_ends_a_running_command_and_forgets_it(guest: FakeGuest) -> None:
    async def body(client: AsyncClient) -> None:
        async with await start(client, guest):
            pass

    run(guest, body)
    assert [name for name, _ in guest.calls[2:]] == ["process.kill", "process.wait", "process.forget"]


def test_a_detached_command_runs_on(guest: FakeGuest) -> None:
    async def body(client: AsyncClient) -> None:
        async with await start(client, guest) as process:
            await process.detach()
        with pytest.raises(InvalidState):
            await process.read()

    run(guest, body)
    assert [name for name, _ in guest.calls[2:]] == ["process.detach"]


@pytest.mark.parametrize("way", ["detach", "forget", "unsubscribe"])
def test_a_task_that_reads_what_another_lets_go_of_is_told(guest: FakeGuest, way: str) -> None:
    guest.answers["events.subscribe"] = lambda _: {"next": 8, "missed": 0}
    guest.answers["events.unsubscribe"] = lambda _: {}

    async def body(client: AsyncClient) -> None:
        process, events = await start(client, guest), await client.events()
        read, let_go = {
            "detach": (process.read, process.detach),
            "forget": (process.read, process.forget),
            "unsubscribe": (events.read, events.aclose),
        }[way]

        async def wait() -> None:
            with pytest.raises(InvalidState, match="from here"):
                await read()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await let_go()

    run(guest, body)
