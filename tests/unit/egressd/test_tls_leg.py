from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from coworkd.egressd.loop import Loop
from coworkd.egressd.tcp import reset
from coworkd.egressd.tls_leg import ParentTrust, TlsLeg
from tests.unit.certificates import make, make_authority
from tests.unit.egressd.inspected_room import Peer, serving
from tests.unit.egressd.sockets import open_fds, read_all, tcp_pair, turn_until
from tests.unit.egressd.test_loop import Clock

ROOT = make_authority()
PROXY = make("proxy.example", by=ROOT, hosts=("proxy.example",))


class Legged:
    """A leg, its plain end, and the proxy that is the test's."""

    def __init__(self, loop: Loop, context: ssl.SSLContext, hostname: str = "proxy.example") -> None:
        self.loop = loop
        upstream, self.wire = tcp_pair()
        self.proxy = Peer(serving(PROXY), server_side=True)
        self.leg = TlsLeg(loop, upstream, context, hostname)
        self.plain = self.leg.plain
        self.wire_ended = False
        self.leg.start(registered=False)

    def move(self) -> None:
        """Between the wire and the proxy's TLS, and a turn."""
        with contextlib.suppress(BlockingIOError, ssl.SSLError):
            while not self.wire_ended:
                data = self.wire.recv(65536)
                self.wire_ended = not data
                self.proxy.receive(data)
        with contextlib.suppress(OSError):
            self.wire.send(self.proxy.outgoing.read())
        self.loop.turn(0.002)

    def until(self, condition: object) -> None:
        assert callable(condition)
        for _ in range(2000):
            if condition():
                return
            self.move()
        raise AssertionError("it never came to that")

    def close(self) -> None:
        self.plain.close()
        self.wire.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    opened = Loop(clock)
    yield opened
    opened.close()


@pytest.fixture
def trust() -> ParentTrust:
    made = ParentTrust()
    made.trust(ROOT.pem)
    return made


@pytest.fixture
def legged(loop: Loop, clock: Clock, trust: ParentTrust) -> Iterator[Legged]:
    before = open_fds()
    opened = Legged(loop, trust.context())
    yield opened
    opened.close()
    clock.now += 6
    loop.turn(0)
    loop.turn(0)
    assert open_fds() == before


def test_plain_bytes_are_encrypted_on_the_wire(legged: Legged) -> None:
    legged.plain.send(b"CONNECT index.example:443")
    legged.until(lambda: legged.proxy.heard == b"CONNECT index.example:443")
    legged.proxy.say(b"HTTP/1.1 200 OK")
    got = bytearray()

    def answered() -> bool:
        got.extend(read_all(legged.plain))
        return bytes(got) == b"HTTP/1.1 200 OK"

    legged.until(answered)


def test_nothing_is_said_to_a_proxy_of_another_name(loop: Loop, clock: Clock, trust: ParentTrust) -> None:
    legged = Legged(loop, trust.context(), "other.example")
    legged.plain.send(b"Proxy-Authorization: secret")
    legged.until(lambda: legged.leg.failed)
    assert "not trusted" in str(legged.leg.failed)
    legged.until(lambda: at_end(legged.plain))
    assert legged.proxy.heard == b""
    legged.close()
    loop.turn(0)


def at_end(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_nothing_is_said_to_a_proxy_whose_authority_is_not_trusted(loop: Loop) -> None:
    legged = Legged(loop, ParentTrust().context())
    legged.plain.send(b"Proxy-Authorization: secret")
    legged.until(lambda: legged.leg.failed)
    assert legged.proxy.heard == b""
    legged.close()
    loop.turn(0)


def test_large_amounts_pass_both_ways(legged: Legged) -> None:
    data = bytes(range(256)) * 4096
    waiting, got = data, bytearray()
    legged.proxy.say(data)

    def passed() -> bool:
        nonlocal waiting
        with contextlib.suppress(BlockingIOError):
            waiting = waiting[legged.plain.send(waiting[:50_000]) :]
        got.extend(read_all(legged.plain))
        return len(legged.proxy.heard) == len(got) == len(data)

    sent = 0

    def push() -> bool:
        nonlocal sent
        out = legged.proxy.outgoing.read(50_000)
        while out:
            try:
                out = out[legged.wire.send(out) :]
            except BlockingIOError:
                legged.loop.turn(0.001)
                got.extend(read_all(legged.plain))
        with contextlib.suppress(BlockingIOError):
            legged.proxy.receive(legged.wire.recv(65536))
        legged.loop.turn(0.001)
        return passed()

    for _ in range(5000):
        if push():
            break
    assert bytes(got) == data
    assert legged.proxy.heard == data


def test_the_proxys_end_is_an_end_of_file(legged: Legged) -> None:
    legged.proxy.say(b"last words")
    legged.until(lambda: legged.proxy._established)
    legged.proxy.end()
    got = bytearray()

    def ended() -> bool:
        try:
            data = legged.plain.recv(100)
        except BlockingIOError:
            return False
        got.extend(data)
        return not data

    legged.until(ended)
    assert bytes(got) == b"last words"


def test_a_reset_of_the_proxys_is_an_end(legged: Legged) -> None:
    legged.until(lambda: legged.proxy._established)
    reset(legged.wire)
    legged.wire.close()
    turn_until(legged.loop, lambda: at_end(legged.plain))


def test_the_clients_end_is_told_to_the_proxy(legged: Legged) -> None:
    legged.plain.send(b"all")
    legged.plain.shutdown(socket.SHUT_WR)
    legged.until(lambda: legged.proxy.ended)
    assert legged.proxy.heard == b"all"


def test_what_was_sent_before_the_close_still_goes(legged: Legged) -> None:
    legged.until(lambda: legged.proxy._established)
    legged.plain.send(b"last words")
    legged.plain.close()
    legged.until(lambda: legged.proxy.heard == b"last words")


def test_a_proxy_that_never_ends_is_cut_after_the_close(legged: Legged, clock: Clock) -> None:
    legged.until(lambda: legged.proxy._established)
    legged.plain.close()
    legged.until(lambda: legged.proxy.ended)
    clock.now += 6
    legged.loop.turn(0)
    legged.until(lambda: legged.wire_ended)


def test_other_certificates_replace_those_before(trust: ParentTrust) -> None:
    first = trust.context()
    assert trust.context() is first
    trust.trust("")
    assert trust.context() is not first
    with pytest.raises(OSError, match="certificate"):
        broken(trust).context()


def broken(trust: ParentTrust) -> ParentTrust:
    trust.trust("no certificate")
    return trust
