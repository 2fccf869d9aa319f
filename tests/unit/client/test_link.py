"""One link between several threads, with a guest that is not ours at its other end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from coworkd.client.link import Link
from coworkd.model.errors import CoworkError, DeadlineExceeded, Unauthenticated, Unavailable
from tests.unit.client.conftest import HELLO, FakeGuest


@pytest.fixture
def link(guest: FakeGuest) -> Iterator[Link]:
    made = greeted(guest)
    yield made
    made.close()


def greeted(guest: FakeGuest) -> Link:
    guest.begin()
    link = Link(guest.host)
    link.greet("test", None, 5)
    return link


def ask(link: Link, method: str, params: dict[str, Any] | None = None, timeout_s: float | None = None) -> Any:
    with link.lock:
        pending, frame = link.core.request(method, params or {})
    return link.finish(pending, frame, timeout_s)


def test_a_deadline_that_passes_leaves_the_link_usable(link: Link, guest: FakeGuest) -> None:
    guest.answers["slow"] = lambda _: None
    guest.answers["echo"] = lambda params: params
    with pytest.raises(DeadlineExceeded, match="slow"):
        ask(link, "slow", timeout_s=0.02)
    assert ask(link, "echo", {"n": 1}) == {"n": 1}


def test_a_lost_link_raises_unavailable_now_and_later(link: Link, guest: FakeGuest) -> None:
    guest.answers["slow"] = lambda _: guest.hang_up()
    for _ in range(2):
        with pytest.raises(Unavailable, match="connect again"):
            ask(link, "slow")
    assert isinstance(link.core.broken, Unavailable)


def test_threads_share_one_link(link: Link, guest: FakeGuest) -> None:
    guest.answers["echo"] = lambda params: params
    results: list[bool] = []

    def work(number: int) -> None:
        results.extend(ask(link, "echo", {"n": [number, turn]}) == {"n": [number, turn]} for turn in range(50))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 400


def test_close_wakes_a_call_that_waits_in_another_thread(link: Link, guest: FakeGuest) -> None:
    asked = threading.Event()
    guest.answers["slow"] = lambda _: asked.set()
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            ask(link, "slow")
        except Unavailable as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert asked.wait(60)
    link.close()
    thread.join(60)
    assert [str(error) for error in raised] == ["this client was closed"]


def interrupt(*_: object) -> Any:
    """What a signal handler may raise, wherever it comes."""
    raise KeyboardInterrupt


class Interrupted:
    """A stream whose sends are interrupted."""

    sendall = staticmethod(interrupt)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("way", ["reading", "sending"])
def test_an_exception_out_of_the_middle_breaks_the_link(link: Link, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "reading":
        monkeypatch.setattr(link, "_receive", interrupt)
    else:
        monkeypatch.setattr(link, "_stream", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        ask(link, "ping")
    with pytest.raises(Unavailable, match=f"interrupted while {way}"):
        ask(link, "ping")


def test_one_that_is_kept_goes_on_over_the_next(link: Link, guest: FakeGuest, next_guest: FakeGuest) -> None:
    told: list[CoworkError | None] = []
    link.changed = told.append
    link.keep(lambda _: greeted(next_guest), 60)
    guest.answers["ping"] = lambda _: guest.hang_up()
    next_guest.answers["hello"] = lambda _: {**HELLO, "version": "9.10"}
    next_guest.answers["ping"] = lambda _: {"time": 1.0, "monotonic": 2.0}
    assert ask(link, "ping") == {"time": 1.0, "monotonic": 2.0}
    assert (link.core.link, link.hello.version) == (1, "9.10")
    assert [type(error) for error in told] == [Unavailable, type(None)]


def test_one_that_cannot_be_made_again_is_broken_with_what_was_said(link: Link, guest: FakeGuest) -> None:
    def refuse(_: float) -> Link:
        raise Unauthenticated("the token is wrong")

    link.keep(refuse, 60)
    guest.hang_up()
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="token"):
            ask(link, "ping")
