"""The client's state machine, fed with bytes the msgpack library made."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.client.core import Core
from coworkd.client.feed import Feed
from coworkd.model.errors import InvalidState, LimitExceeded, Unavailable

OUTPUT = {"process": "p1", "stream": "stdout", "offset": 0, "data": b"hi"}


def packed(*message: Any) -> bytes:
    return bytes(msgpack.packb(list(message)))


def greeted(**told: Any) -> Core:
    core = Core()
    pending, _ = core.hello("test", None)
    core.receive(packed(1, pending.request_id, None, {"protocol": 1, **told}))
    assert pending.answer() == {"protocol": 1, **told}
    return core


def up_since(*moments: float, boot_id: str = "b") -> dict[str, Any]:
    """What a coworkd tells in `hello` that has been through so many stages."""
    return {"boot_id": boot_id, "stages": [{"name": "s", "started_at": moment} for moment in moments]}


def test_hello_names_the_client_the_versions_and_the_token() -> None:
    _, frame = Core().hello("me", "secret")
    assert msgpack.unpackb(frame) == [
        0,
        0,
        "hello",
        [{"client": "me", "protocol": {"min": 1, "max": 1}, "token": "secret"}],
    ]


def test_answers_find_their_calls_in_any_order() -> None:
    core = greeted()
    first, _ = core.request("ping", {})
    second, _ = core.request("info", {})
    core.receive(packed(1, second.request_id, None, {"n": 2}) + packed(1, first.request_id, None, {"n": 1}))
    assert (first.answer(), second.answer()) == ({"n": 1}, {"n": 2})


def test_what_came_is_news_for_whom_it_is_until_something_else_comes() -> None:
    core = greeted()
    started, _, made = core.start({"session": "work"})
    core.receive(packed(1, started.request_id, None, {"process": "p1"}))
    assert core.news == {started}
    opened, _, streams = core.open_stream("forward.open", {"session": "work", "port": 80})
    core.receive(packed(1, opened.request_id, None, {"stream": "s1"}) + packed(2, "process.output", [OUTPUT]))
    assert core.news == {opened, made[0]}
    feed = Feed(None)
    subscribed, _ = core.subscribe(feed)
    core.receive(packed(1, subscribed.request_id, None, {"next": 1, "missed": 0}))
    core.receive(
        packed(2, "stream.data", [{"stream": "s1", "offset": 0, "data": b"x"}])
        + packed(2, "session.created", [{"seq": 1, "at": 1.0}])
    )
    assert core.news == {streams[0], feed}
    core.receive(packed(2, "process.output", [{**OUTPUT, "process": "of nobody"}]))
    assert core.news == set()


def test_a_call_over_the_limit_is_refused_here_and_harms_nothing() -> None:
    core = greeted()
    with pytest.raises(LimitExceeded) as caught:
        core.request("process.write_stdin", {"data": bytes(1024 * 1024)})
    assert caught.value.details["stage"] == "too_big"
    pending, _ = core.request("ping", {})
    core.receive(packed(1, pending.request_id, None, {}))
    assert pending.answer() == {}


def test_before_hello_was_answered_the_smaller_limit_holds() -> None:
    core = Core()
    with pytest.raises(LimitExceeded):
        core.request("hello", {"client": "x" * 20_000})


def test_output_in_the_same_bytes_as_the_answer_to_start_is_not_lost() -> None:
    core = greeted()
    pending, _, made = core.start({"session": "s", "argv": ["x"]})
    answer = packed(1, pending.request_id, None, {"process": "p1", "pid": 1, "started_at": 1.0})
    core.receive(answer + packed(2, "process.output", [OUTPUT]))
    assert made[0].take() == ("stdout", 0, b"hi", False)


def test_an_inbox_that_was_dropped_is_kept_by_nobody_though_its_output_was_never_acknowledged() -> None:
    core = greeted()
    core.lasting = True
    pending, _, made = core.start({"session": "s", "argv": ["x"]})
    core.receive(packed(1, pending.request_id, None, {"process": "p1", "pid": 1, "started_at": 1.0}))
    core.receive(packed(2, "process.output", [OUTPUT]))
    kept = weakref.ref(made[0])
    core.drop(made.pop())
    del pending
    core.receive(packed(2, "something.else", [{}]))
    gc.collect()
    assert kept() is None


def test_a_start_that_does_not_attach_has_no_inbox() -> None:
    core = greeted()
    pending, _, made = core.start({"session": "s", "argv": ["x"], "attach": False})
    core.receive(packed(1, pending.request_id, None, {"process": "p1", "pid": 1, "started_at": 1.0}))
    assert made == []


def test_a_tty_has_one_stream() -> None:
    core = greeted()
    pending, _, made = core.start({"session": "s", "argv": ["x"], "tty": {"rows": 1, "cols": 1}})
    core.receive(packed(1, pending.request_id, None, {"process": "p1", "pid": 1, "started_at": 1.0}))
    assert made[0].wanted == {"tty": 0}


def test_attach_begins_where_asked_and_else_at_the_oldest_byte_kept() -> None:
    core = greeted()
    pending, frame, made = core.attach("p1", {"stdout": 9})
    assert msgpack.unpackb(frame)[3] == [{"process": "p1", "stdout": 9}]
    streams = {"stdout": {"first": 3, "end": 20}, "stderr": {"first": 5, "end": 5}}
    core.receive(packed(1, pending.request_id, None, {"streams": streams}))
    assert made[0].wanted == {"stdout": 9, "stderr": 5}


def test_a_parked_inbox_asks_the_guest_to_stop() -> None:
    core = greeted()
    pending, _, made = core.start({"session": "s", "argv": ["x"]})
    core.receive(packed(1, pending.request_id, None, {"process": "p1", "pid": 1, "started_at": 1.0}))
    made[0]._bound_bytes = 2
    core.receive(packed(2, "process.output", [OUTPUT]) + packed(2, "process.output", [{**OUTPUT, "offset": 2}]))
    assert [msgpack.unpackb(frame)[2:] for frame in core.outgoing] == [["process.detach", [{"process": "p1"}]]]


def test_published_events_go_to_the_feed_and_never_to_an_inbox() -> None:
    core = greeted()
    feed = Feed(4)
    pending, frame = core.subscribe(feed)
    assert msgpack.unpackb(frame)[3] == [{"after": 4}]
    core.receive(packed(1, pending.request_id, None, {"next": 6, "missed": 0}))
    core.receive(packed(2, "process.exit", [{"seq": 5, "at": 1.0, "process": "p1"}]))
    event = feed.take()
    assert event is not None
    assert event.name == "process.exit"


def test_events_that_went_while_the_host_did_not_read_are_counted() -> None:
    core = greeted()
    feed = Feed(4)
    pending, _ = core.subscribe(feed)
    core.receive(packed(1, pending.request_id, None, {"next": 6, "missed": 1}))
    core.receive(packed(2, "events.missed", [{"missed": 3, "next": 9}]))
    assert feed.missed == 4


def test_unknown_notifications_are_ignored() -> None:
    core = greeted()
    core.receive(packed(2, "new.thing", [{"a": 1}]))
    assert core.broken is None


def test_the_end_of_the_link_fails_what_waits_and_says_what_to_do() -> None:
    core = greeted()
    pending, _ = core.request("ping", {})
    core.receive(b"")
    with pytest.raises(Unavailable, match="attach"):
        pending.answer()
    with pytest.raises(Unavailable):
        core.request("ping", {})


def test_what_the_guest_said_of_the_link_is_the_reason_of_its_end() -> None:
    core = greeted()
    core.receive(packed(2, "link.error", [{"code": "FAILED_PRECONDITION", "message": "why", "details": {}}]))
    core.receive(b"")
    assert isinstance(core.broken, InvalidState)
    assert core.broken.message == "why"


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        packed(1, 999, None, {}),
        packed(0, 1, "ping", [{}]),
        packed(2, "process.output", [{"process": "p1"}]),
        packed(2, "process.output", [{**OUTPUT, "data": "text"}]),
    ],
    ids=["never-used-byte", "unknown-id", "request-of-a-guest", "output-without-fields", "output-as-text"],
)
def test_a_guest_that_breaks_the_rules_breaks_the_link_and_nothing_else(data: bytes) -> None:
    core = greeted()
    pending, _ = core.request("ping", {})
    core.receive(data)
    with pytest.raises(Unavailable):
        pending.answer()


def test_an_exit_that_cannot_be_read_breaks_the_link() -> None:
    core = greeted()
    pending, _, _ = core.start({"session": "s", "argv": ["x"]})
    core.receive(packed(1, pending.request_id, None, {"process": "p1", "pid": 1, "started_at": 1.0}))
    core.receive(packed(2, "process.exit", [{"process": "p1", "exit": 3}]))
    assert isinstance(core.broken, Unavailable)
    assert core.broken.details["method"] == "process.exit"


def test_an_abandoned_start_makes_no_inbox() -> None:
    core = greeted()
    pending, _, made = core.start({"session": "s", "argv": ["x"]})
    pending.abandon()
    core.receive(packed(1, pending.request_id, None, {"process": "p1", "pid": 1, "started_at": 1.0}))
    assert made == []
    assert core.broken is None


@pytest.mark.parametrize(
    ("before", "now", "is_same"),
    [
        (up_since(1.0), up_since(1.0), True),
        (up_since(1.0), up_since(1.0, 2.0), True),
        (up_since(1.0), up_since(3.0), False),
        (up_since(1.0), up_since(1.0, boot_id="c"), False),
        (up_since(), up_since(3.0), False),
    ],
)
def test_what_may_not_happen_twice_is_made_again_by_the_coworkd_that_was_asked_and_by_no_other(
    before: dict[str, Any], now: dict[str, Any], is_same: bool
) -> None:
    core = greeted(**before)
    core.lasting = True
    run, _ = core.request("process.run", {"session": "s"})
    signal, _ = core.request("process.signal", {"process": "p", "signal": 1})
    kill, _ = core.request("process.kill", {"process": "p"})
    listing, _ = core.request("process.list", {})
    not_taken_whole, _ = core.request("session.delete", {"session": "s"})
    for pending in (run, signal, kill, listing, not_taken_whole):
        pending.sent = True
    core.unheard(run, TimeoutError())
    core.unheard(not_taken_whole, BrokenPipeError())
    core.receive(b"")
    never_said, _ = core.request("process.run", {"session": "s"})
    core.renew(greeted(**now))
    assert [pending.done for pending in (listing, kill, not_taken_whole, never_said)] == [False] * 4
    assert [pending.done for pending in (run, signal)] == [not is_same, not is_same]
    if not is_same:
        with pytest.raises(Unavailable, match="whether it was done is not known") as caught:
            signal.answer()
        assert caught.value.details == {"method": "process.signal", "stage": "restarted"}
        with pytest.raises(Unavailable, match="not run a second time"):
            run.answer()


def test_a_call_that_was_said_again_on_another_link_may_have_been_heard() -> None:
    core = greeted()
    core.lasting = True
    pending, _ = core.request("process.run", {"session": "s"})
    core.receive(b"")
    core.renew(greeted())
    core.unheard(pending, BrokenPipeError())
    assert pending.sent


@pytest.mark.parametrize("sent", [False, True])
def test_a_start_that_no_guest_can_have_heard_is_not_taken_for_the_one_that_has_its_id(sent: bool) -> None:
    core = greeted(**up_since(1.0))
    core.lasting = True
    if not sent:
        core.receive(b"")
    pending, _, _ = core.start({"session": "s", "argv": ["x"], "id": "somebody's"})
    pending.sent = sent
    core.receive(b"")
    core.renew(greeted(**up_since(3.0)))
    assert pending.elsewhere is sent
