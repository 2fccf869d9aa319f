from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from coworkd.egressd.loop import Loop
from coworkd.egressd.resolve import THREADS, NotFound, Resolver, look_up
from tests.unit.egressd.sockets import open_fds, turn_until

Result = list[str] | NotFound


class Names:
    """A name service of the test's own: names in `hanging` are not answered before `release`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hanging: set[str] = set()
        self.release = threading.Event()

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if host in self.hanging or "hang" in host:
            assert self.release.wait(60)
        if host.startswith("nothing"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host.startswith("silent"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host.startswith("odd"):
            raise ValueError("embedded null character")
        if host.startswith("empty"):
            return []
        if host.startswith("many"):
            return [f"198.51.100.{number}" for number in range(200)]
        return ["198.51.100.7"]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def loop() -> Iterator[Loop]:
    opened = Loop()
    yield opened
    opened.close()


@pytest.fixture
def resolver(loop: Loop, names: Names) -> Iterator[Resolver]:
    before = open_fds()
    made = Resolver(loop, names)
    yield made
    names.release.set()
    made.close()
    for thread in threading.enumerate():
        if thread.name == "resolver":
            thread.join(60)
    made.close()
    assert open_fds() == before


def resolve(loop: Loop, resolver: Resolver, host: str, session: str = "s") -> Result:
    got: list[Result] = []
    resolver.resolve(session, host, got.append)
    turn_until(loop, lambda: got)
    return got[0]


def test_a_name_is_looked_up_in_a_thread(loop: Loop, resolver: Resolver) -> None:
    assert resolve(loop, resolver, "index.example") == ["198.51.100.7"]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("nothing.example", "is not known to the name service"),
        ("silent.example", "could not be looked up: the name server does not answer"),
        ("empty.example", "has no address"),
    ],
)
def test_a_failure_says_what_it_was(loop: Loop, resolver: Resolver, host: str, words: str) -> None:
    result = resolve(loop, resolver, host)
    assert isinstance(result, NotFound)
    assert str(result) == words


def test_an_odd_failure_costs_no_thread(loop: Loop, resolver: Resolver) -> None:
    for number in range(2 * THREADS):
        result = resolve(loop, resolver, f"odd{number}.example")
        assert str(result) == "could not be looked up: embedded null character"
    assert resolve(loop, resolver, "index.example") == ["198.51.100.7"]


def test_an_answer_is_bounded(loop: Loop, resolver: Resolver) -> None:
    assert len(resolve(loop, resolver, "many.example")) == 32  # type: ignore[arg-type]


def test_nothing_is_called_from_within(loop: Loop, resolver: Resolver, names: Names) -> None:
    names.release.set()
    got: list[Result] = []
    for number in range(400):
        resolver.resolve("s", f"hang{number}.example", got.append)
    assert got == []
    turn_until(loop, lambda: len(got) == 400)


def test_the_same_name_is_looked_up_once_at_a_time(loop: Loop, resolver: Resolver, names: Names) -> None:
    got: list[Result] = []
    for _ in range(5):
        resolver.resolve("s", "hang.example", got.append)
    resolver.resolve("other", "hang.example", got.append)
    names.release.set()
    turn_until(loop, lambda: len(got) == 6)
    assert names.asked == ["hang.example"] * 2
    resolve(loop, resolver, "hang.example")
    assert names.asked == ["hang.example"] * 3


def test_names_that_hang_cost_their_session_only(loop: Loop, resolver: Resolver) -> None:
    for session in map(str, range(12)):
        for number in range(50):
            resolver.resolve(session, f"hang{number}.example", lambda _: pytest.fail("it hangs"))
    assert resolve(loop, resolver, "index.example", "another") == ["198.51.100.7"]


def test_threads_are_few(loop: Loop, resolver: Resolver) -> None:
    for session in range(40):
        for number in range(5):
            resolver.resolve(f"s{session}", f"hang{number}.example", lambda _: None)
    assert sum(thread.name == "resolver" for thread in threading.enumerate()) == THREADS


def test_too_many_names_of_a_session_are_refused(loop: Loop, resolver: Resolver) -> None:
    got: list[Result] = []
    for number in range(400):
        resolver.resolve("s", f"hang{number}.example", got.append)
    loop.turn(0)
    assert len(got) == 400 - 3 - 256
    assert all("too many" in str(result) for result in got)


def test_who_cancels_is_not_called(loop: Loop, resolver: Resolver, names: Names) -> None:
    waiter = resolver.resolve("s", "hang.example", lambda _: pytest.fail("it was cancelled"))
    waiter.cancel()
    names.release.set()
    assert resolve(loop, resolver, "index.example") == ["198.51.100.7"]


def test_the_systems_names_are_known() -> None:
    assert "127.0.0.1" in look_up("127.0.0.1")


def test_search_domains_are_off_once_a_name_was_looked_up(loop: Loop, resolver: Resolver) -> None:
    resolve(loop, resolver, "index.example")
    assert os.environ["LOCALDOMAIN"] == ""
