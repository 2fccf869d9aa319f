from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coworkd.egressd.events import EVENT_LIMIT
from coworkd.egressd.server import Egress
from coworkd.model.egress import (
    Allowance,
    Begin,
    Begun,
    CaMade,
    Change,
    Done,
    EgressLimits,
    GetCa,
    Inspection,
    Ping,
    Quit,
    Recorded,
    Refused,
    Serve,
    SessionEgress,
    Stop,
    TrustRoots,
)
from coworkd.netpolicy.guard import Guard
from coworkd.netpolicy.ranges import parse_address
from tests.unit.egressd.egress_house import FILTER, SERVER_ADDRESS, House, open_house, session_egress, settings
from tests.unit.egressd.sockets import open_fds

ALLOWED = session_egress("server.example")
NOTHING = SessionEgress(settings=())


class FixedCa:
    """An inspector that only has a certificate, and takes those that begin well."""

    def __init__(self) -> None:
        self.trusted: list[str] = []

    def ca_pem(self) -> bytes:
        return b"a certificate"

    def trust(self, pem: str) -> None:
        if not pem.startswith("PEM"):
            raise OSError("not a certificate")
        self.trusted.append(pem)

    def inspect(self, *_: object) -> None:
        raise AssertionError("nothing is inspected here")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    before = open_fds()
    with open_house(str(tmp_path), monkeypatch, inspector=FixedCa()) as opened:  # type: ignore[arg-type]
        yield opened
    assert open_fds() == before


# -- the conversation ---------------------------------------------------------------------------------------------


def test_begin_says_who_serves_what(house: House) -> None:
    begun = house.begin()
    assert isinstance(begun, Begun)
    assert (begun.pid, begun.sessions, begun.degraded) == (os.getpid(), (), ("no walls in a test",))
    assert house.filters == [FILTER]


def test_the_filter_is_installed_once(house: House) -> None:
    house.begin()
    house.leave()
    house.begin()
    assert house.filters == [FILTER]


def test_without_a_filter_nothing_is_served(house: House) -> None:
    house.connect()
    assert isinstance(house.ask(Begin(id=0, version="1", filter_bpf=b"", host_uri="")), Refused)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused = house.ask(Serve(id=0, session="s", egress=ALLOWED), listener.fileno())
    assert isinstance(refused, Refused)
    assert "Begin comes first" in refused.message


def test_begin_comes_first(house: House) -> None:
    house.connect()
    house.send(Recorded(through=5))
    assert isinstance(house.ask(Ping(id=0)), Refused)


def test_a_second_supervisor_is_answered_by_end_of_file(house: House) -> None:
    house.begin()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as second:
        second.connect(house.path)
        house.turn(3)
        second.settimeout(60)
        assert second.recv(100) == b""
    assert isinstance(house.ask(Ping(id=0)), Done)


def test_only_root_may_be_supervisor(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.egress, "_trusted_uid", os.geteuid() + 1)
    supervisor = house.connect()
    house.turn(3)
    supervisor.settimeout(60)
    assert supervisor.recv(100) == b""


def test_a_supervisor_that_breaks_the_words_is_cut_off_and_another_serves(house: House) -> None:
    house.begin()
    proxy = house.serve(ALLOWED)
    assert house.supervisor is not None
    house.supervisor.send(b"garbage")
    house.turn(3)
    house.leave()
    begun = house.begin()
    assert isinstance(begun, Begun)
    assert begun.sessions == ("s",)
    assert house.client(proxy).connect("elsewhere.example:1").startswith(b"HTTP/1.1 403 ")


def test_the_certificate_of_the_inspection_is_handed_over(house: House) -> None:
    house.begin()
    assert house.ask(GetCa(id=0)) == CaMade(id=2, pem=b"a certificate")


def test_certificates_to_verify_by_are_handed_to_the_inspection(house: House) -> None:
    house.begin()
    assert house.ask(TrustRoots(id=0, pem="PEM of a host")) == Done(id=2)
    assert house.egress.state.inspector.trusted == ["PEM of a host"]  # type: ignore[attr-defined]
    refused = house.ask(TrustRoots(id=0, pem="nonsense"))
    assert isinstance(refused, Refused)
    assert "not a certificate" in refused.message


def test_quit_closes_everything_and_ends(house: House) -> None:
    house.begin()
    proxy = house.serve(ALLOWED)
    client = house.client(proxy)
    house.turn(2)
    assert isinstance(house.ask(Quit(id=0)), Done)
    house.egress.loop.run()  # ends at once
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)


def test_the_last_ends_are_told_before_the_answer_to_quit(house: House) -> None:
    house.begin()
    server = house.server()
    house.client(house.serve(ALLOWED)).connect(f"server.example:{server.port}")
    house.ask(Quit(id=0))
    assert house.kinds() == ["open", "close"]
    assert house.events[1].reason == "coworkd-egress ends"


def test_without_a_supervisor_it_ends_after_its_linger_time(tmp_path: Path) -> None:
    now = 0.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        egress = Egress(
            listener,
            linger_s=30,
            degraded=[],
            install_filter=lambda _: None,
            inspector=FixedCa(),  # type: ignore[arg-type]
            clock=lambda: now,
        )
        egress.start()
        for _ in range(3):
            now += 10
            egress.loop.turn(0)
        assert egress.loop._stopped is False
        now += 10
        egress.loop.run()
        egress.close()


# -- sessions -----------------------------------------------------------------------------------------------------


def test_listeners_must_be_listeners(house: House) -> None:
    house.begin()
    assert isinstance(house.ask(Serve(id=0, session="s", egress=ALLOWED)), Refused)
    with socket.socket() as unbound, open("/dev/null") as null:
        for fd in (unbound.fileno(), null.fileno()):
            assert isinstance(house.ask(Serve(id=0, session="s", egress=ALLOWED), fd), Refused)
    assert house.count().sessions == 0


def test_serving_again_replaces_the_listeners_and_keeps_the_tunnels(house: House) -> None:
    house.begin()
    server = house.server()
    old = house.serve(ALLOWED)
    client = house.client(old)
    client.connect(f"server.example:{server.port}")
    far = server.accept()
    new = house.serve(ALLOWED)
    client.say(b"still")
    assert far.hear(count=5) == b"still"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(old)
    assert house.client(new).connect(f"server.example:{server.port}").startswith(b"HTTP/1.1 200 ")


def test_sessions_have_rules_of_their_own(house: House) -> None:
    house.begin()
    server = house.server()
    target = f"server.example:{server.port}"
    one, other = house.serve(ALLOWED, session="one"), house.serve(NOTHING, session="other")
    assert house.client(one).connect(target).startswith(b"HTTP/1.1 200 ")
    assert house.client(other).connect(target).startswith(b"HTTP/1.1 403 ")
    house.until(lambda: len(house.events) == 2)
    assert [event.session for event in house.events] == ["one", "other"]


def test_a_change_applies_to_the_next_connection(house: House) -> None:
    house.begin()
    server = house.server()
    target = f"server.example:{server.port}"
    proxy = house.serve(ALLOWED)
    tunnel = house.client(proxy)
    tunnel.connect(target)
    far = server.accept()
    assert house.ask(Change(id=0, session="s", egress=NOTHING)) == Done(id=3)
    assert house.client(proxy).connect(target).startswith(b"HTTP/1.1 403 ")
    tunnel.say(b"kept")
    assert far.hear(count=4) == b"kept"


def test_a_change_closes_what_it_forbids_where_asked_to(house: House) -> None:
    house.begin()
    server = house.server()
    proxy = house.serve(session_egress("server.example", "127.0.0.2"))
    kept, closed = house.client(proxy), house.client(proxy)
    kept.connect(f"127.0.0.2:{server.port}")
    server.accept()
    closed.connect(f"server.example:{server.port}")
    server.accept()
    change = Change(id=0, session="s", egress=session_egress("127.0.0.2"), close_forbidden=True)
    answer = house.ask(change)
    assert isinstance(answer, Done)
    assert answer.closed == 1
    with pytest.raises(ConnectionResetError):
        closed.socket.recv(1)
    with pytest.raises(BlockingIOError):
        kept.socket.recv(1)
    house.until(lambda: "close" in house.kinds())
    assert house.events[-1].reason.startswith("the policy forbids it now: ")


def test_a_change_reaches_those_that_are_still_being_opened(house: House) -> None:
    house.begin()
    server = house.server()
    proxy = house.serve(ALLOWED)
    house.records = False
    client = house.client(proxy)
    client.say(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\n".encode())
    server.accept()
    house.ask(Change(id=0, session="s", egress=NOTHING, close_forbidden=True))
    house.acknowledge()
    assert client.hear().startswith(b"HTTP/1.1 403 ")


def inspecting(*tokens: str) -> SessionEgress:
    inspection = Inspection(domains=("server.example",), token_sha256=tokens)
    return SessionEgress(settings=(msgspec.structs.replace(settings("server.example"), inspect=inspection),))


def test_a_change_closes_what_would_be_inspected_now(house: House) -> None:
    house.begin()
    server = house.server()
    target = f"server.example:{server.port}"
    proxy = house.serve(ALLOWED)
    tunnel, plain = house.client(proxy), house.client(proxy)
    tunnel.connect(target)
    server.accept()
    plain.say(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    server.accept().hear(until=b"\r\n\r\n")
    assert house.ask(Change(id=0, session="s", egress=inspecting(), close_forbidden=True)) == Done(id=3, closed=2)
    for client in (tunnel, plain):
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)


def test_a_change_to_inspection_reaches_a_plain_request_that_is_being_opened(house: House) -> None:
    house.begin()
    server = house.server()
    target = f"server.example:{server.port}"
    proxy = house.serve(ALLOWED)
    house.records = False
    client = house.client(proxy)
    client.say(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    far = server.accept()
    house.ask(Change(id=0, session="s", egress=inspecting(), close_forbidden=True))
    house.acknowledge()
    assert client.hear().startswith(b"HTTP/1.1 403 ")
    assert far.hear() == b""


@pytest.mark.parametrize(
    ("then", "closed"), [((), 0), (("a" * 64, "b" * 64), 0), (("a" * 64,), 1), (("c" * 64,), 1), (("",), 1)]
)
def test_a_change_closes_inspected_connections_whose_tokens_are_fewer_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: tuple[str, ...], closed: int
) -> None:
    with open_house(str(tmp_path), monkeypatch) as house:
        house.begin()
        server = house.server()
        proxy = house.serve(inspecting("a" * 64, "b" * 64))
        house.client(proxy).connect(f"server.example:{server.port}")
        server.accept()
        answer = house.ask(Change(id=0, session="s", egress=inspecting(*then), close_forbidden=True))
        assert answer == Done(id=3, closed=closed)


def test_a_change_reaches_a_name_that_is_still_being_looked_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leads to is judged by the rules there are when the way is open."""

    def judge(guard: Guard, address: str, *, is_own: bool, port: int | None = None) -> str | None:
        return "resolved to a listed address" if parse_address(address) in guard._listed else None  # type: ignore[operator]

    monkeypatch.setattr(Guard, "judge", judge)
    house.begin()
    server = house.server()
    proxy = house.serve(ALLOWED)
    house.names.hanging["server.example"] = found = threading.Event()
    client = house.client(proxy)
    client.say(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\n".encode())
    house.until(lambda: house.kinds() == ["open"])
    listed = msgspec.structs.replace(settings("server.example"), denied_addresses=(SERVER_ADDRESS,))
    house.ask(Change(id=0, session="s", egress=SessionEgress(settings=(listed,)), close_forbidden=True))
    found.set()
    answer = client.hear()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"listed address" in answer


def allowing(until: float) -> SessionEgress:
    """A session with a list that allows other.example, and everything of .example until then."""
    allowances = (Allowance(pattern="*.example", until=until),)
    return SessionEgress(settings=(settings("other.example"),), allowances=allowances)


def test_what_rests_on_an_allowance_ends_with_it(house: House) -> None:
    house.begin()
    now = 1000.0
    house.egress.state.wall = lambda: now
    server = house.server()
    house.names.known["other.example"] = house.names.known["server.example"]
    proxy = house.serve(allowing(until=1600.0))
    resting, listed = house.client(proxy), house.client(proxy)
    for client, name in ((resting, "server.example"), (listed, "other.example")):
        client.connect(f"{name}:{server.port}")
        server.accept()
    house.pass_time(1)
    assert house.kinds() == ["open", "open"]
    house.ask(Change(id=0, session="s", egress=allowing(until=1700.0)))
    now = 1650.0
    house.pass_time(1)
    assert house.kinds() == ["open", "open"], "it was allowed for longer meanwhile"
    now = 1700.0
    house.pass_time(1)
    assert house.kinds() == ["open", "open", "close"]
    assert (house.events[-1].host, house.events[-1].reason[:28]) == ("server.example", "the policy forbids it now: h")
    with pytest.raises(ConnectionResetError):
        resting.socket.recv(1)
    with pytest.raises(BlockingIOError):
        listed.socket.recv(1)


def test_a_change_of_what_is_not_served_is_refused(house: House) -> None:
    house.begin()
    assert isinstance(house.ask(Change(id=0, session="nobody", egress=NOTHING)), Refused)


def test_stop_closes_listeners_and_tunnels(house: House) -> None:
    house.begin()
    server = house.server()
    proxy = house.serve(ALLOWED)
    client = house.client(proxy)
    client.connect(f"server.example:{server.port}")
    assert house.ask(Stop(id=0, session="s")) == Done(id=3, closed=1)
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy)
    house.until(lambda: house.kinds() == ["open", "close"])
    assert house.events[1].reason == "the session is closed"
    assert house.ask(Stop(id=0, session="s")) == Done(id=4)


def test_counts_are_told(house: House) -> None:
    house.begin()
    server = house.server()
    proxy = house.serve(ALLOWED)
    client = house.client(proxy)
    client.connect(f"server.example:{server.port}")
    assert house.count().connections == 1
    house.client(proxy).connect("elsewhere.example:443")
    client.say(b"12345")
    assert server.accept().hear(count=5) == b"12345"
    client.socket.close()
    house.ask(Stop(id=0, session="s"))
    counts = house.count()
    assert (counts.sessions, counts.connections, counts.connections_total) == (0, 0, 2)
    assert (counts.refused_total, counts.sent_bytes, counts.received_bytes) == (1, 5, 0)


# -- without a supervisor -----------------------------------------------------------------------------------------


def test_tunnels_flow_and_new_ones_wait_for_the_next_supervisor(house: House) -> None:
    house.begin()
    server = house.server()
    target = f"server.example:{server.port}"
    proxy = house.serve(ALLOWED)
    tunnel = house.client(proxy)
    tunnel.connect(target)
    far = server.accept()
    house.leave()
    tunnel.say(b"flows")
    assert far.hear(count=5) == b"flows"
    late = house.client(proxy)
    late.say(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    house.turn(10)
    with pytest.raises(BlockingIOError):
        late.socket.recv(1)
    house.events.clear()
    house.begin()
    assert late.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert [(event.seq, event.kind) for event in house.events] == [(2, "open")]


def test_a_supervisor_that_has_just_started_is_told_all_that_is_not_recorded(house: House) -> None:
    house.begin()
    proxy = house.serve(ALLOWED)
    house.records = False
    for port in (1, 2, 3):
        house.client(proxy).connect(f"elsewhere.example:{port}")
    house.until(lambda: len(house.events) == 3)
    house.leave()
    house.events.clear()
    house.records = True
    house.begin()
    house.until(lambda: len(house.events) == 3)
    assert [event.seq for event in house.events] == [1, 2, 3]
    house.until(lambda: house.count().unrecorded == 0)


def test_who_waits_too_long_for_a_supervisor_is_refused(house: House) -> None:
    house.begin()
    server = house.server()
    proxy = house.serve(ALLOWED)
    house.leave()
    client = house.client(proxy)
    client.say(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\n".encode())
    house.turn(10)
    house.pass_time(15.1)
    assert client.hear().startswith(b"HTTP/1.1 503 ")
    house.begin()
    house.until(lambda: house.kinds() == ["open", "close"])


def test_nothing_is_accepted_while_no_event_can_be_kept(house: House) -> None:
    house.begin()
    server = house.server()
    many = EgressLimits(connections=2 * EVENT_LIMIT, burst=10**6, rate_per_s=10**6)
    proxy = house.serve(session_egress("server.example", limits=many))
    target = f"server.example:{server.port}"
    house.leave()
    events = house.egress.state.events
    port = 0
    while events.has_room:
        port += 1
        client = house.client(proxy)
        client.connect(f"elsewhere{port}.example:443")
        client.socket.close()
        house.clock.now += 0.01  # so that not too many are told as one
        if port % 200 == 0:
            house.clock.now += 1
            house.turn()
    waiting = house.client(proxy)
    waiting.say(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    house.turn(10)
    assert not server.is_asked
    assert len(events) == EVENT_LIMIT
    house.begin()
    house.until(lambda: len(events) < 10)
    assert waiting.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_who_had_asked_before_there_was_no_room_is_decided_when_there_is(house: House) -> None:
    house.begin()
    server = house.server()
    proxy = house.serve(ALLOWED)
    client = house.client(proxy)
    house.turn(3)
    house.records = False
    real = type(house.egress.state.events).has_room
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(house.egress.state.events), "has_room", property(lambda _: False))
        client.say(f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example\r\n\r\n".encode())
        house.turn(5)
        assert house.events == []
    assert type(house.egress.state.events).has_room is real
    house.records = True
    house.egress._room_came()
    assert client.hear(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
