from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from coworkd.egressd.budget import TURN_S, Budget
from coworkd.egressd.exchange import Exchange
from coworkd.egressd.loop import ERROR, Loop
from coworkd.egressd.pump import BUFFER_LIMIT_BYTES, NOTHING, Sends
from coworkd.egressd.tcp import reset
from tests.unit.egressd.sockets import fill, read_all, tcp_pair, turn_until
from tests.unit.egressd.test_loop import Clock


class Crossing:
    """A pump that passes bytes on in capitals; `over` and `raw` are the test's to set off by a word."""

    def __init__(self) -> None:
        self.wants_client = True
        self.upstream_done = False
        self.ended = False
        self.abrupt = False
        self.raw = False
        self.lost: list[str] = []
        self.ends: list[str] = []

    def start(self) -> Sends:
        return Sends(upstream=b"begin ")

    def receive_client(self, data: bytes) -> Sends:
        if not data:
            self.ends.append("client")
        return Sends(upstream=data.upper())

    def receive_upstream(self, data: bytes) -> Sends:
        if not data:
            self.ends.append("upstream")
            self.upstream_done = True
        self.ended = b"END" in data
        self.raw = b"RAW" in data
        return Sends(client=data)

    def lose_upstream(self, reason: str) -> Sends:
        self.lost.append(reason)
        self.ended = self.abrupt = True
        return NOTHING


class Pair:
    """One exchange between `client` and `server`."""

    def __init__(self, loop: Loop, budget: Budget | None = None) -> None:
        self.loop = loop
        self.pump = Crossing()
        self.client, self.near = tcp_pair()
        upstream, self.server = tcp_pair()
        self.over: list[tuple[str, str]] = []
        self.exchange = Exchange(
            loop,
            self.pump,
            self.near,
            upstream,
            lambda outcome, reason: self.over.append((outcome, reason)),
            budget=budget,
        )
        self.upstream = upstream

    def start(self, *, from_client: bytes = b"", from_upstream: bytes = b"", to_client: bytes = b"") -> None:
        self.exchange.start(
            to_client=to_client, from_client=from_client, from_upstream=from_upstream, client_mask=0, upstream_mask=0
        )

    def heard(self, connection: socket.socket, count: int) -> bytes:
        got = bytearray()

        def enough() -> bool:
            got.extend(read_all(connection))
            return len(got) >= count

        turn_until(self.loop, enough)
        return bytes(got)

    def until_over(self) -> tuple[str, str]:
        turn_until(self.loop, lambda: self.over)
        return self.over[0]

    def close(self) -> None:
        self.exchange.end()
        self.loop.forget(self.near.fileno())
        for connection in (self.client, self.near, self.upstream, self.server):
            connection.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    opened = Loop()
    yield opened
    opened.close()


@pytest.fixture
def pair(loop: Loop) -> Iterator[Pair]:
    opened = Pair(loop)
    yield opened
    opened.close()


def test_bytes_go_through_the_pump(pair: Pair) -> None:
    pair.start(to_client=b"200 ", from_client=b"early ", from_upstream=b"first ")
    pair.client.send(b"late")
    assert pair.heard(pair.server, 16) == b"begin EARLY LATE"
    pair.server.send(b"answer")
    assert pair.heard(pair.client, 16) == b"200 first answer"
    assert (pair.exchange.sent_bytes, pair.exchange.received_bytes) == (16, 12)


class Answering(Crossing):
    """A pump that answers each side itself, as TLS answers a KeyUpdate."""

    def receive_client(self, data: bytes) -> Sends:
        return Sends(client=data)

    def receive_upstream(self, data: bytes) -> Sends:
        return Sends(upstream=data)


@pytest.mark.parametrize("side", ["client", "server"])
def test_one_who_has_itself_answered_and_reads_nothing_is_not_read(pair: Pair, side: str) -> None:
    pair.exchange._pump = Answering()
    pair.start()
    sent = 0
    for _ in range(400):
        sent += fill(getattr(pair, side))
        pair.loop.turn(0)
    unsent = sum(map(len, pair.exchange.unsent))
    assert BUFFER_LIMIT_BYTES < unsent < 3 * BUFFER_LIMIT_BYTES
    assert sent > unsent


class Slow(Crossing):
    """A pump to which each arrival is a turn's work."""

    def __init__(self, clock: Clock, sizes: list[int]) -> None:
        super().__init__()
        self._clock = clock
        self._sizes = sizes
        self.takes_s = 1.5 * TURN_S

    def receive_upstream(self, data: bytes) -> Sends:
        self._clock.now += self.takes_s
        self._sizes.append(len(data))
        return NOTHING


def test_a_session_that_is_hard_to_understand_has_its_share_of_a_turn(loop: Loop) -> None:
    """Twenty of its connections have much to say: one is heard a turn, in small pieces from then on."""
    clock, sizes = Clock(), list[int]()
    budget = Budget(loop, clock)
    pairs = [Pair(loop, budget) for _ in range(20)]
    for pair in pairs:
        pair.exchange._pump = Slow(clock, sizes)
        pair.server.send(bytes(10_000))
        pair.start()
    turn_until(loop, lambda: sizes)
    before, turns = len(sizes), loop.turns
    turn_until(loop, lambda: sum(sizes) == 200_000)
    assert len(sizes) - before <= loop.turns - turns
    sizes.clear()
    slow = pairs[0].exchange._pump
    assert isinstance(slow, Slow)
    pairs[0].server.send(bytes(10_000))
    turn_until(loop, lambda: sum(sizes) == 10_000)
    assert max(sizes) <= 4096
    slow.takes_s = 0.0
    pairs[0].server.send(bytes(100_000))
    turn_until(loop, lambda: sum(sizes) == 110_000)
    assert max(sizes) > 16_000  # it was slow once, not for ever
    for pair in pairs:
        pair.close()


def test_the_upstreams_end_leaves_the_client(pair: Pair) -> None:
    pair.start()
    pair.heard(pair.server, 6)
    pair.server.close()
    assert pair.until_over() == ("done", "")
    assert pair.upstream.fileno() == -1
    assert pair.near.fileno() >= 0


def test_words_before_the_end_are_handed_over(pair: Pair) -> None:
    pair.start()
    fill(pair.near)
    pair.server.send(b"END")
    assert pair.until_over() == ("ended", "")
    assert pair.exchange.unsent[0] == b"END"


def test_raw_hands_both_sockets_over(pair: Pair) -> None:
    pair.start()
    pair.server.send(b"RAW")
    assert pair.until_over() == ("raw", "")
    assert pair.upstream.fileno() >= 0


def test_the_clients_end_is_told_once_and_the_answer_still_comes(pair: Pair) -> None:
    pair.start()
    pair.client.shutdown(socket.SHUT_WR)
    turn_until(pair.loop, lambda: pair.pump.ends)
    pair.loop.turn(0.01)
    assert pair.loop.turn(0) == 0
    pair.server.send(b"answer")
    assert pair.heard(pair.client, 6) == b"answer"
    assert pair.pump.ends == ["client"]


def test_a_lost_upstream_is_told_to_the_pump(pair: Pair) -> None:
    pair.start()
    pair.heard(pair.server, 6)
    reset(pair.server)
    pair.server.close()
    assert pair.until_over() == ("ended", "upstream: connection reset by peer")
    assert pair.pump.lost == ["upstream: connection reset by peer"]


def test_a_lost_client_ends_it(pair: Pair) -> None:
    pair.start()
    reset(pair.client)
    pair.client.close()
    assert pair.until_over() == ("lost", "client: connection reset by peer")


class Enduring(Crossing):
    """A pump to which the client alone ends anything: it is still to be told that its server is lost."""

    def receive_upstream(self, data: bytes) -> Sends:
        return NOTHING

    def lose_upstream(self, reason: str) -> Sends:
        self.lost.append(reason)
        return NOTHING


def test_an_upstream_that_was_reset_is_not_heard_of_again(loop: Loop, pair: Pair) -> None:
    pair.exchange._pump = pump = Enduring()
    pair.start()
    reset(pair.server)
    pair.server.close()
    turn_until(loop, lambda: pump.lost)
    for _ in range(3):
        loop.turn(0.001)
    assert [loop.turn(0) for _ in range(5)] == [0] * 5


def test_a_unix_client_that_hung_up_is_not_heard_of_again(loop: Loop) -> None:
    """Its close is a hang-up at once, while the answer may take long."""
    client, near = socket.socketpair()
    upstream, server = tcp_pair()
    near.setblocking(False)
    pump = Crossing()
    exchange = Exchange(loop, pump, near, upstream, lambda *_: None)
    exchange.start(to_client=b"", from_client=b"", from_upstream=b"", client_mask=0, upstream_mask=0)
    client.close()
    turn_until(loop, lambda: pump.ends)
    for _ in range(3):
        loop.turn(0.001)
    assert [loop.turn(0) for _ in range(5)] == [0] * 5
    exchange.end()
    loop.forget(near.fileno())
    near.close()
    server.close()


def test_silence_is_told_to_the_pump(pair: Pair) -> None:
    pair.start()
    pair.exchange.time_out("nothing moved for 900 s")
    assert pair.until_over() == ("ended", "nothing moved for 900 s")
    assert pair.pump.lost == ["nothing moved for 900 s"]


def test_what_waits_for_a_slow_client_is_bounded(pair: Pair) -> None:
    pair.start()
    pair.heard(pair.server, 6)
    sent = 0
    for _ in range(100):
        sent += fill(pair.server)
        pair.loop.turn(0.001)
    assert len(pair.exchange.unsent[0]) <= BUFFER_LIMIT_BYTES + 65536
    pair.loop.turn(0)
    assert pair.loop.turn(0) == 0
    assert len(pair.heard(pair.client, sent)) == sent


def test_what_waits_for_a_slow_server_is_bounded(pair: Pair) -> None:
    pair.start()
    for _ in range(100):
        fill(pair.client)
        pair.loop.turn(0.001)
    assert len(pair.exchange.unsent[1]) <= BUFFER_LIMIT_BYTES + 65536


def test_a_client_that_is_not_wanted_is_not_read(pair: Pair) -> None:
    pair.pump.wants_client = False
    pair.start()
    pair.client.send(b"too early")
    for _ in range(5):
        pair.loop.turn(0.001)
    assert pair.exchange.sent_bytes == 6
    pair.pump.wants_client = True
    pair.server.send(b"answer")
    assert pair.heard(pair.server, 15) == b"begin TOO EARLY"


def test_an_upstream_that_takes_nothing_more_is_still_read(pair: Pair) -> None:
    """It may have answered before it closed."""
    pair.start()
    pair.heard(pair.server, 6)
    pair.server.shutdown(socket.SHUT_RD)
    pair.server.send(b"refused; ")
    for _ in range(20):
        pair.client.send(b"upload")
        pair.loop.turn(0.001)
    assert pair.heard(pair.client, 9) == b"refused; "


def test_an_end_calls_nobody(pair: Pair) -> None:
    pair.start()
    pair.exchange.end()
    assert pair.over == []
    assert pair.upstream.fileno() == -1


def test_a_client_that_is_gone_is_heard_while_it_is_not_read(pair: Pair) -> None:
    pair.pump.wants_client = False
    pair.start()
    reset(pair.client)
    pair.client.close()
    assert pair.until_over() == ("lost", "client: it is gone")


def test_an_upstream_that_is_gone_is_heard_while_it_is_not_read(pair: Pair) -> None:
    pair.start()
    pair.heard(pair.server, 6)
    turn_until(pair.loop, lambda: fill(pair.server) == 0 and pair.exchange.upstream_mask == ERROR)
    reset(pair.server)
    pair.server.close()
    assert pair.until_over() == ("ended", "upstream: it is gone")
