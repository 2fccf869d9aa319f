"""One link between several threads, with a guest that is not ours at its other end."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from coworkd.client import renewal
from coworkd.client.dial import PortStream, Stream
from coworkd.client.link import Link
from coworkd.model.errors import CoworkError, DeadlineExceeded, Unauthenticated, Unavailable
from tests.unit.client.conftest import HELLO, FakeGuest


@pytest.fixture
def link(guest: FakeGuest) -> Iterator[Link]:
    made = greeted(guest)
    yield made
    made.close()


def greeted(guest: FakeGuest, stream: Stream | None = None) -> Link:
    guest.begin()
    link = Link(stream or guest.host)
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


@pytest.mark.parametrize("kind", ["socket", "port"])
def test_close_wakes_a_call_that_waits_in_another_thread(guest: FakeGuest, kind: str) -> None:
    asked = threading.Event()
    guest.answers["slow"] = lambda _: asked.set()
    link = greeted(guest, guest.host if kind == "socket" else PortStream(os.dup(guest.host.fileno())))
    raised: list[str] = []
    thread = threading.Thread(target=note, args=(raised, link), daemon=True)
    thread.start()
    assert asked.wait(60)
    link.close()
    thread.join(5)
    assert raised == ["this client was closed"]


def test_one_that_is_closed_before_another_thread_waits_for_it_tells_that_thread(
    link: Link, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.answers["slow"] = lambda _: None
    receive = link._receive

    def receive_late(timeout_s: float | None) -> bytes | None:
        closer = threading.Thread(target=link.close)
        closer.start()
        closer.join(60)
        return receive(timeout_s)

    monkeypatch.setattr(link, "_receive", receive_late)
    raised: list[str] = []
    note(raised, link, timeout_s=60)
    assert raised == ["this client was closed"]
    assert guest.host.fileno() == -1


def note(raised: list[str], link: Link, timeout_s: float | None = None) -> None:
    try:
        ask(link, "slow", timeout_s=timeout_s)
    except Unavailable as error:
        raised.append(str(error))


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


def test_one_that_is_closed_while_it_waits_to_dial_again_ends_at_once(
    link: Link, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "PAUSE_FIRST_S", 3600.0)
    monkeypatch.setattr(renewal, "PAUSE_LAST_S", 3600.0)
    dialled: list[float] = []
    heard: queue.Queue[BaseException] = queue.Queue()

    def nobody_there(left_s: float) -> Link:
        dialled.append(left_s)
        raise Unavailable("nobody is there")

    def wait_for_an_answer() -> None:
        try:
            ask(link, "ping")
        except BaseException as error:
            heard.put(error)

    monkeypatch.setattr("coworkd.client.link.DIAL_S", 3600.0)
    link.keep(nobody_there, 7200)
    guest.hang_up()
    waiting = threading.Thread(target=wait_for_an_answer, daemon=True)
    waiting.start()
    deadline = time.monotonic() + 60
    while link._renewal._pause_s == 0 or not dialled:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    link.close()
    error = heard.get(timeout=60)
    assert isinstance(error, Unavailable)
    assert "closed" in str(error)
    assert len(dialled) == 1
