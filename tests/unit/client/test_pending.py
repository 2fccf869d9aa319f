"""`client.pending`: one call, from when it is made until it was answered or has failed."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.client.pending import MUTATING, Pending, read_answer
from coworkd.model.calls import ProcessAttached
from coworkd.model.errors import AlreadyExists, CoworkError, LimitExceeded, NotFound, Unavailable
from coworkd.wire.connection import Response


def made(method: str, **params: Any) -> Pending:
    return Pending(method, params, 0, None)


def answered(result: Any) -> Response:
    return Response(id=0, error=None, result=result)


def refused(code: str, **details: Any) -> Response:
    return Response(id=0, error={"code": code, "message": "m", "details": details}, result=None)


def test_an_answer_goes_to_the_hook_and_then_to_who_waits() -> None:
    had: list[dict[str, Any]] = []
    pending = made("info")
    pending.hook = had.append
    assert not pending.done
    pending.settle(answered({"a": 1}))
    assert pending.done
    assert had == [pending.answer()] == [{"a": 1}]


def test_an_error_comes_back_as_its_class_with_its_details() -> None:
    pending = made("session.get", session="x")
    pending.settle(refused("NOT_FOUND", key="k"))
    with pytest.raises(NotFound, match="m") as caught:
        pending.answer()
    assert caught.value.details == {"key": "k"}


def test_an_error_is_told_and_is_nothing_for_the_hook() -> None:
    told: list[CoworkError] = []
    had: list[dict[str, Any]] = []
    pending = made("stream.ack")
    pending.hook, pending.refused = had.append, told.append
    pending.settle(refused("RESOURCE_EXHAUSTED"))
    assert [type(error) for error in told] == [LimitExceeded]
    assert had == []


def test_an_answer_that_is_no_map_is_a_fault_of_the_guests() -> None:
    pending = made("ping")
    pending.settle(answered([]))
    with pytest.raises(Unavailable, match="ping was answered with something that is no map"):
        pending.answer()


def test_what_failed_raises_the_error_it_failed_with() -> None:
    pending = made("ping")
    pending.fail(Unavailable("gone"))
    assert pending.done
    with pytest.raises(Unavailable, match="gone"):
        pending.answer()


def test_what_was_abandoned_is_done_with_as_something_unwanted() -> None:
    had: list[str] = []
    pending = made("forward.open")
    pending.hook, pending.unwanted = lambda result: had.append("wanted"), lambda result: had.append("unwanted")
    pending.abandon()
    pending.settle(answered({}))
    assert had == ["unwanted"]


def test_an_abandoned_hello_greets_all_the_same() -> None:
    had: list[dict[str, Any]] = []
    pending = made("hello")
    pending.hook = had.append
    pending.abandon()
    pending.settle(answered({"protocol": 1}))
    assert had == [{"protocol": 1}]


@pytest.mark.parametrize(
    ("method", "repeatable"),
    [
        ("ping", True),
        ("process.run", True),
        ("hello", False),
        ("shutdown", False),
        ("stream.ack", False),
        ("new.thing", False),
    ],
)
def test_what_means_one_link_or_is_not_known_is_not_made_again_on_another(method: str, repeatable: bool) -> None:
    assert made(method).repeatable is repeatable


@pytest.mark.parametrize("same", [True, False])
def test_what_no_guest_has_heard_is_made_again_wherever_the_link_goes(same: bool) -> None:
    pending = made("process.run", session="s")
    assert pending.repeat(same)
    assert (pending.sent, pending.repeated, pending.elsewhere, pending.done) == (True, False, False, False)


def test_what_was_heard_is_made_again_where_it_was_heard_and_elsewhere_only_where_it_may_happen_twice() -> None:
    run, kill = made("process.run", session="s"), made("process.kill", process="p")
    run.sent = kill.sent = True
    assert [run.repeat(same=True), kill.repeat(same=True)] == [True, True]
    assert [run.elsewhere, kill.elsewhere] == [False, False]
    assert [run.repeat(same=False), kill.repeat(same=False)] == [False, True]
    assert (run.done, kill.elsewhere) == (True, True)
    with pytest.raises(Unavailable, match="not run a second time"):
        run.answer()


@pytest.mark.parametrize(("same", "done"), [((False,), True), ((False, True), True), ((True,), False)])
def test_a_repeated_forget_that_another_coworkd_does_not_find_was_done(same: tuple[bool, ...], done: bool) -> None:
    forget = made("process.forget", process="p")
    forget.sent = True
    for each in same:
        assert forget.repeat(each)
    forget.settle(refused("NOT_FOUND"))
    if done:
        assert forget.answer() == {}
    else:
        with pytest.raises(NotFound):
            forget.answer()


def test_another_error_of_what_was_asked_elsewhere_is_its_answer() -> None:
    start = made("process.start", id="one")
    start.sent = True
    assert start.repeat(same=False)
    start.settle(refused("ALREADY_EXISTS"))
    with pytest.raises(AlreadyExists):
        start.answer()


def test_calls_that_change_something_are_those_that_take_an_id() -> None:
    assert {"process.run", "session.ensure"} <= MUTATING
    assert MUTATING.isdisjoint({"ping", "process.list", "new.thing"})


def test_an_answer_is_read_as_its_type_without_what_this_version_does_not_know() -> None:
    streams = {"stdout": {"first": 3, "end": 20, "new": 1}}
    assert read_answer("process.attach", {"streams": streams, "new": 2}, ProcessAttached).streams["stdout"].first == 3


def test_an_answer_that_cannot_be_read_names_the_call() -> None:
    with pytest.raises(Unavailable, match="versions that fit") as caught:
        read_answer("process.attach", {"streams": 3}, ProcessAttached)
    assert caught.value.details == {"method": "process.attach"}
