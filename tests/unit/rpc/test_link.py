from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.errors import (
    CoworkError,
    InternalError,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    Unauthenticated,
    Unimplemented,
)
from coworkd.model.ports import LinkPort
from coworkd.rpc.link import HELLO_S, IN_FLIGHT, LAST_WORDS_S
from coworkd.rpc.writer import CONTROL_FRAMES, ROOM_FRAMES
from coworkd.wire.connection import Notification, Response
from tests.unit.rpc.fakes import HELLO, FakeHost, FakeSource, bench, mutating, plain, run


async def slow(link: LinkPort) -> dict[str, Any]:
    await trio.sleep(1)
    return {"done": True}


async def forever(link: LinkPort) -> dict[str, Any]:
    await trio.sleep_forever()
    raise AssertionError("reached")


def test_hello_opens_and_calls_are_answered() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = bed.connect()
            answer = await host.greet()
            assert (answer["protocol"], answer["degraded"]) == (1, {"disk": "none"})
            assert set(await host.call("ping")) == {"time", "monotonic"}

    run(main)


def test_before_hello_nothing_is_served_and_the_link_stays() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = bed.connect()
            for method in ("ping", "no.such"):
                with pytest.raises(Unauthenticated, match="hello first"):
                    await host.call(method)
            await host.greet()

    run(main)


def test_a_pipelined_call_behind_hello_is_served_whatever_its_size() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = bed.connect()
            hello = host.send("hello", **HELLO)
            host.connection.greeted()
            ping = host.send("ping", filler="x" * 100_000)
            await host.answer(hello)
            with pytest.raises(InvalidParams, match="filler"):
                await host.answer(ping)

    run(main)


def test_second_hello_is_refused_and_changes_nothing() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            with pytest.raises(InvalidState):
                await host.call("hello", **HELLO)
            await host.call("ping")

    run(main)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (HELLO, Unauthenticated),
        (HELLO | {"token": "wrong"}, Unauthenticated),
        (HELLO | {"token": "right", "protocol": {"min": 2, "max": 9}}, InvalidState),
        ({"client": 1}, InvalidParams),
    ],
)
def test_a_failed_hello_is_answered_and_closes(params: dict[str, Any], error: type[CoworkError]) -> None:
    async def main() -> None:
        async with bench(token="right") as bed:
            host = bed.connect()
            with pytest.raises(error):
                await host.call("hello", **params)
            assert await host.next_event() is None
            assert bed.server.links == 0

    run(main)


def test_silence_is_closed_at_the_deadline_with_a_reason() -> None:
    async def main() -> None:
        async with bench() as bed:
            last = await bed.connect().closing()
            assert trio.current_time() == pytest.approx(HELLO_S)
            assert last.params["code"] == "DEADLINE_EXCEEDED"

    run(main)


def test_a_slow_drip_does_not_move_the_deadline() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = bed.connect()
            _, data = host.connection.send_request("hello", HELLO)

            async def drip() -> None:
                for byte in data:
                    host.transport.feed(bytes([byte]))
                    await trio.sleep(0.5)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip)
                assert (await host.closing()).params["code"] == "DEADLINE_EXCEEDED"
                assert trio.current_time() == pytest.approx(HELLO_S)
                nursery.cancel_scope.cancel()

    run(main)


def test_a_greeted_link_may_be_silent() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            await trio.sleep(3600)
            await host.call("ping")

    run(main)


def test_a_host_that_promised_to_speak_and_does_not_is_gone() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = bed.connect()
            await host.call("hello", **HELLO, keepalive_s=10)
            host.connection.greeted()
            await trio.sleep(29)
            await host.call("ping")
            await trio.sleep(29)
            assert not host.transport.closed
            await trio.sleep(12)
            assert host.transport.closed

    run(main)


def test_a_clock_that_jumps_ends_no_link_that_speaks() -> None:
    """A guest that slept for eight hours has missed every turn in between, and counts one."""

    async def main() -> None:
        async with bench() as bed:
            host = bed.connect()
            await host.call("hello", **HELLO, keepalive_s=10)
            host.connection.greeted()
            await trio.testing.wait_all_tasks_blocked()
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            for _ in range(3):
                clock.jump(8 * 3600)
                await trio.testing.wait_all_tasks_blocked()
                await host.call("ping")
            assert not host.transport.closed

    run(main)


@pytest.mark.parametrize("keepalive_s", [0.5, -1, 3601])
def test_a_promise_out_of_bounds_is_refused(keepalive_s: float) -> None:
    async def main() -> None:
        async with bench() as bed:
            host = bed.connect()
            with pytest.raises(InvalidParams, match="keepalive_s"):
                await host.call("hello", **HELLO, keepalive_s=keepalive_s)

    run(main)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "message-shape"),
        (b"\x94\x00\x01\xa4ping\xdd\xff\xff\xff\xff", "items"),
        (b"\x94\x00\x01\xa4ping\x91\x81\xa1a\xc6\xff\xff\xff\xff", "frame-bytes"),
        (b"\x94\x00\x01\xa4ping" + b"\x91" * 2000, "depth"),
        (b"\x94\x00\x01\xa4ping\xc1", "format"),
        (b"\x93\x02\xa1a\x90" * 3 + b"\xff", "message-shape"),
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_a_breach_is_told_and_closes_that_link_alone(data: bytes, rule: str, greeted: bool) -> None:
    async def main() -> None:
        async with bench() as bed:
            other = await bed.greeted()
            host = await bed.greeted() if greeted else bed.connect()
            host.transport.feed(data)
            last = await host.closing()
            assert last.params["details"]["rule"] == rule
            assert trio.current_time() < 1
            await other.call("ping")

    run(main)


def test_nothing_behind_a_breach_is_done() -> None:
    done = []

    async def mark(link: LinkPort) -> dict[str, Any]:
        done.append(link.name)
        return {}

    async def main() -> None:
        async with bench([plain("mark", mark)]) as bed:
            host = await bed.greeted()
            host.transport.feed(b"\xc1")
            host.send("mark")
            await host.closing()
            assert done == []

    run(main)


def test_a_truncated_message_is_told() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            host.transport.feed(b"\x94\x00")
            host.transport.feed_eof()
            assert (await host.closing()).params["details"]["rule"] == "truncated"

    run(main)


def test_a_peer_that_does_not_take_its_last_words_is_closed_all_the_same() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            host.transport.stall()
            host.transport.feed(b"\xc1")
            await host.transport.wait_moved()
            assert host.transport.closed
            assert trio.current_time() == pytest.approx(LAST_WORDS_S)

    run(main)


def test_unknown_methods_and_parameters_leave_the_link() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            with pytest.raises(Unimplemented, match="did you mean ping"):
                await host.call("pingg")
            with pytest.raises(InvalidParams, match="odd"):
                await host.call("ping", odd=1)
            await host.call("ping")

    run(main)


def test_notifications_of_a_host_are_ignored() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            host.transport.feed(host.connection.send_notification("ping", {}))
            await host.call("ping")

    run(main)


def test_calls_run_side_by_side() -> None:
    async def main() -> None:
        async with bench([plain("slow", slow)]) as bed:
            host = await bed.greeted()
            slow_ids = [host.send("slow") for _ in range(20)]
            await host.call("ping")
            assert trio.current_time() < 0.5
            for request_id in slow_ids:
                assert await host.answer(request_id) == {"done": True}
            assert trio.current_time() == pytest.approx(1)

    run(main)


def test_too_many_calls_are_refused_and_a_place_is_free_later() -> None:
    async def main() -> None:
        async with bench([plain("slow", slow)]) as bed:
            host = await bed.greeted()
            ids = [host.send("slow") for _ in range(IN_FLIGHT)]
            with pytest.raises(LimitExceeded, match="running"):
                await host.call("slow")
            for request_id in ids:
                await host.answer(request_id)
            await host.call("slow")

    run(main)


@pytest.mark.parametrize(
    ("raised", "expected"), [(NotFound("no such", key="x"), NotFound), (ZeroDivisionError("secret"), InternalError)]
)
def test_errors_of_handlers_travel_and_the_link_stays(raised: Exception, expected: type[CoworkError]) -> None:
    async def fail(link: LinkPort) -> Any:
        raise raised

    async def main() -> None:
        async with bench([plain("fail", fail)]) as bed:
            host = await bed.greeted()
            with pytest.raises(expected) as caught:
                await host.call("fail")
            assert "secret" not in caught.value.message
            await host.call("ping")

    run(main)


@pytest.mark.parametrize(
    ("answer", "expected"), [({"data": bytes(5_000_000)}, LimitExceeded), ({"text": "\udcff"}, InternalError)]
)
def test_answers_that_cannot_travel_become_errors(answer: dict[str, Any], expected: type[CoworkError]) -> None:
    async def give(link: LinkPort) -> Any:
        return answer

    async def main() -> None:
        async with bench([plain("give", give)]) as bed:
            host = await bed.greeted()
            with pytest.raises(expected):
                await host.call("give")

    run(main)


def test_an_error_whose_details_are_too_large_travels_without_them() -> None:
    async def fail(link: LinkPort) -> Any:
        raise NotFound("it", many=[["x" * 4000] * 40] * 40)

    async def main() -> None:
        async with bench([plain("fail", fail)]) as bed:
            with pytest.raises(NotFound) as caught:
                await (await bed.greeted()).call("fail")
            assert caught.value.details == {}

    run(main)


def test_a_mutating_call_ends_though_its_link_is_lost_and_its_answer_is_kept() -> None:
    done: list[str] = []

    async def start(link: LinkPort) -> dict[str, Any]:
        await trio.sleep(1)
        done.append(link.name)
        return {"process": "p"}

    async def main() -> None:
        async with bench([mutating("start", start)]) as bed:
            host = await bed.greeted()
            host.send("start", request_id="a")
            await trio.testing.wait_all_tasks_blocked()
            host.transport.lose()
            again = await bed.greeted()
            assert await again.call("start", request_id="a") == {"process": "p"}
            assert done == ["fake:1"]

    run(main)


def test_other_calls_end_with_their_link() -> None:
    ended: list[str] = []

    async def wait(link: LinkPort) -> dict[str, Any]:
        try:
            return await forever(link)
        finally:
            ended.append(link.name)

    async def main() -> None:
        async with bench([plain("wait", wait)]) as bed:
            host = await bed.greeted()
            host.send("wait")
            await trio.testing.wait_all_tasks_blocked()
            host.transport.feed_eof()
            await trio.testing.wait_all_tasks_blocked()
            assert ended == ["fake:1"]
            assert host.transport.closed

    run(main)


def test_close_is_told_once_in_reverse_and_after_the_sources() -> None:
    told: list[str] = []

    class Source(FakeSource):
        def detached(self) -> None:
            told.append("detached")

    def fail() -> None:
        raise RuntimeError("a service failed")

    async def watch(link: LinkPort) -> dict[str, Any]:
        link.on_close(lambda: told.append("first"))
        link.on_close(fail)
        link.on_close(lambda: told.append("second"))
        link.attach(Source(0))
        return {}

    async def main() -> None:
        async with bench([plain("watch", watch)]) as bed:
            host = await bed.greeted()
            await host.call("watch")
            host.transport.lose()
            await trio.testing.wait_all_tasks_blocked()
            bed.links[0].close()
            assert told == ["detached", "second", "first"]
            bed.links[0].on_close(lambda: told.append("late"))
            assert told[-1] == "late"

    run(main)


def test_no_output_comes_before_the_answer_of_the_call_that_attached_it() -> None:
    async def start(link: LinkPort) -> dict[str, Any]:
        await trio.sleep(1)
        link.attach(FakeSource(10))
        return {"process": "p"}

    async def main() -> None:
        async with bench([mutating("start", start)]) as bed:
            host = await bed.greeted()
            host.send("start")
            events = [await host.next_event(), await host.next_event()]
            assert [type(event) for event in events] == [Response, Notification]

    run(main)


def test_notify_after_the_end_is_dropped_and_odd_values_are_left_out() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            link = bed.links[0]
            link.notify("odd", {"x": object()})
            link.notify("good", {"x": 1})
            assert await host.next_event() == Notification(method="good", params={"x": 1})
            link.close()
            assert await host.next_event() is None
            link.notify("late", {})

    run(main)


def test_a_peer_that_stops_reading_is_not_read_from_and_slows_nobody_else() -> None:
    async def main() -> None:
        async with bench() as bed:
            other, host = await bed.greeted(), await bed.greeted()
            host.transport.stall()
            for _ in range(3 * ROOM_FRAMES):
                host.send("ping")
            await trio.testing.wait_all_tasks_blocked()
            await other.call("ping")
            waiting = host.transport._take.statistics().current_buffer_used
            assert waiting > ROOM_FRAMES
            host.transport.go_on()
            await trio.testing.wait_all_tasks_blocked()
            assert host.transport._take.statistics().current_buffer_used == 0

    run(main)


def test_a_flood_of_notifications_to_a_peer_that_stops_reading_closes_it() -> None:
    async def main() -> None:
        async with bench() as bed:
            host = await bed.greeted()
            host.transport.stall()
            for _ in range(CONTROL_FRAMES + 2):
                bed.links[0].notify("process.exit", {})
            await trio.testing.wait_all_tasks_blocked()
            assert host.transport.closed
            assert bed.links[0].ended_by == "the peer did not read"

    run(main)


def test_lost_peers_end_their_links() -> None:
    async def main() -> None:
        async with bench() as bed:
            hosts = [await bed.greeted() for _ in range(5)]
            for host in hosts:
                host.transport.lose()
            await trio.testing.wait_all_tasks_blocked()
            assert bed.server.links == 0
            assert all(host.transport.closed for host in hosts)

    run(main)


def test_two_hundred_silent_links_do_not_delay_the_next() -> None:
    async def main() -> None:
        async with bench() as bed:
            silent: list[FakeHost] = [bed.connect() for _ in range(200)]
            host = await bed.greeted()
            await host.call("ping")
            assert trio.current_time() == 0
            assert not any(each.transport.closed for each in silent)

    run(main)
