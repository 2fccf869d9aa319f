from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator

import pytest

from coworkd.egressd import race as races
from coworkd.egressd.loop import Loop
from coworkd.egressd.race import Endpoint, Race, connect_words, take_turns
from tests.unit.egressd.sockets import open_fds, turn_until
from tests.unit.egressd.test_loop import Clock


class Outcome:
    """What a race came to."""

    def __init__(self) -> None:
        self.connected: list[tuple[socket.socket, str]] = []
        self.failed: list[int] = []

    def on_connected(self, connection: socket.socket, endpoint: Endpoint) -> None:
        self.connected.append((connection, str(endpoint.address[0])))

    @property
    def known(self) -> bool:
        return bool(self.connected or self.failed)

    def close(self) -> None:
        for connection, _ in self.connected:
            connection.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    opened = Loop(clock)
    yield opened
    opened.close()


@pytest.fixture
def outcome() -> Iterator[Outcome]:
    made = Outcome()
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return port_of(listener)


def race(loop: Loop, outcome: Outcome, addresses: list[str], port: int) -> Race:
    started = Race(loop, take_turns(addresses, port), outcome.on_connected, outcome.failed.append)
    started.start()
    return started


def test_an_address_that_answers_is_connected(loop: Loop, outcome: Outcome, server: socket.socket) -> None:
    race(loop, outcome, ["127.0.0.1"], port_of(server))
    turn_until(loop, lambda: outcome.known)
    (connection, address), *_ = outcome.connected
    assert address == "127.0.0.1"
    assert connection.getpeername() == server.getsockname()
    assert not connection.getblocking()


def test_a_failure_tries_the_next_at_once(loop: Loop, outcome: Outcome, server: socket.socket) -> None:
    race(loop, outcome, ["::1", "127.0.0.1"], port_of(server))
    turn_until(loop, lambda: outcome.known)
    assert [address for _, address in outcome.connected] == ["127.0.0.1"]


def test_the_last_failure_is_told(loop: Loop, outcome: Outcome) -> None:
    race(loop, outcome, ["127.0.0.1", "127.0.0.2"], closed_port())
    turn_until(loop, lambda: outcome.known)
    assert outcome.failed == [errno.ECONNREFUSED]
    assert connect_words(errno.ECONNREFUSED) == "connection refused"


class Silence:
    """connect(2) towards `silent` addresses that never answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *silent: str) -> None:
        self.tried: list[str] = []
        real = races.connect

        def connect(connection: socket.socket, endpoint: Endpoint) -> int:
            address = str(endpoint.address[0])
            self.tried.append(address)
            return errno.EINPROGRESS if address in silent else real(connection, endpoint)

        monkeypatch.setattr(races, "connect", connect)


def test_one_that_is_silent_is_passed_after_a_quarter_of_a_second(
    loop: Loop, outcome: Outcome, server: socket.socket, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = Silence(monkeypatch, "127.0.0.9")
    race(loop, outcome, ["127.0.0.9", "127.0.0.1"], port_of(server))
    loop.turn(0)
    assert silence.tried == ["127.0.0.9"]
    clock.now += 0.3
    turn_until(loop, lambda: outcome.known)
    assert [address for _, address in outcome.connected] == ["127.0.0.1"]
    assert len(loop._handlers) in (0, 1)


def test_a_cancelled_race_calls_nobody_and_closes_all(
    loop: Loop, outcome: Outcome, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_fds()
    Silence(monkeypatch, "127.0.0.9", "127.0.0.8")
    started = race(loop, outcome, ["127.0.0.9", "127.0.0.8"], 9)
    clock.now += 0.3
    loop.turn(0)
    started.cancel()
    clock.now += 1
    loop.turn(0)
    assert not outcome.known
    assert open_fds() == before


def test_without_a_descriptor_it_fails(loop: Loop, outcome: Outcome) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        race(loop, outcome, ["127.0.0.1"], 9)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert outcome.failed == [errno.EMFILE]


def test_a_path_that_is_too_long_fails(loop: Loop, outcome: Outcome) -> None:
    Race(loop, [Endpoint(socket.AF_UNIX, "/" + 200 * "x")], outcome.on_connected, outcome.failed.append).start()
    assert outcome.failed == [errno.EINVAL]


def test_families_take_turns_beginning_with_the_first() -> None:
    six = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
    four = ["198.51.100.1"]

    def turns(addresses: list[str]) -> list[str | int]:
        return [endpoint.address[0] for endpoint in take_turns(addresses, 443)]

    assert turns([*six, *four]) == [six[0], four[0], six[1], six[2]]
    assert turns([*four, *six]) == [four[0], *six]
    assert turns(six) == six
    assert turns([]) == []
