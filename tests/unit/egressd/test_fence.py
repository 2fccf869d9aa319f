"""Faults within a connection: in every phase, by every way into it, they end it alone and leave nothing."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from coworkd.egressd.connection import Connection
from coworkd.egressd.dial import Dial
from coworkd.egressd.exchange import Exchange
from coworkd.egressd.farewell import Farewell
from coworkd.egressd.faults import Faults
from coworkd.egressd.fence import Fence
from coworkd.egressd.loop import IN, Loop
from coworkd.egressd.records import Record
from coworkd.egressd.relay import Relay
from coworkd.model.egress import Change, Done
from coworkd.netpolicy.decide import Rules
from coworkd.proxy.front import Front
from coworkd.system import splice
from tests.unit.egressd.egress_house import Client, House, open_house, session_egress
from tests.unit.egressd.sockets import open_fds, tcp_pair
from tests.unit.egressd.test_loop import Clock

REASON = re.compile(r"internal error, incident ([0-9a-f]{8})\Z")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    with open_house(str(tmp_path), monkeypatch) as opened:
        yield opened


class Scene:
    """A tunnel that lives on, and a client whose connection is about to fail."""

    def __init__(self, house: House) -> None:
        self.house = house
        house.begin()
        self.egress = session_egress("server.example", "127.0.0.2")
        self.proxy = house.serve(self.egress)
        self.server = house.server()
        self.target = f"server.example:{self.server.port}"
        self.written: list[str] = []
        house.egress.state.faults = Faults(house.clock, self.written.append)
        self.other = house.client(self.proxy)
        assert self.other.connect(self.target).startswith(b"HTTP/1.1 200 ")
        self.far = self.server.accept()
        self.turn_and_collect()
        self.fds = open_fds()
        self.client = house.client(self.proxy)

    def turn_and_collect(self) -> None:
        self.house.turn(5)
        gc.collect()

    def end(self, *, told: str) -> None:
        """The client saw a reset, one `close` (or `refused`) says why, the log as well, the tunnel flows, and nothing is left."""
        house = self.house
        house.until(lambda: any(REASON.match(event.reason) for event in house.events))
        failed = [event for event in house.events if REASON.match(event.reason)]
        assert [event.kind for event in failed] == [told]
        match = REASON.match(failed[0].reason)
        assert match is not None
        assert len(self.written) == 1
        assert f"incident {match[1]}\n" in self.written[0]
        with pytest.raises(ConnectionResetError):
            self.client.hear()
        self.client.socket.close()
        while self.server.is_asked:
            self.server.accept().socket.close()
        self.other.say(b"flows")
        assert self.far.hear(count=5) == b"flows"
        counts = house.count()
        assert (counts.connections, counts.faults_total) == (1, 1)
        opened = [event.connection for event in house.events if event.kind == "open"]
        closed = [event.connection for event in house.events if event.kind == "close"]
        assert sorted(opened)[1:] == sorted(closed)
        self.turn_and_collect()
        assert open_fds() == self.fds


@pytest.fixture
def scene(house: House) -> Scene:
    return Scene(house)


class Broken(Exception):
    """What nobody expects."""


def fails(*_: object, **__: object) -> NoReturn:
    raise Broken("a fault")


def fails_once(real: Callable[..., object]) -> Callable[..., object]:
    """Fail at the first call, as `real` afterwards."""
    calls: list[int] = []

    def call(*arguments: object, **options: object) -> object:
        calls.append(1)
        return fails() if len(calls) == 1 else real(*arguments, **options)

    return call


def test_a_fault_while_a_request_is_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Front, "receive_data", fails)
    scene.client.say(b"CONNECT ")
    scene.end(told="refused")


def test_a_fault_while_it_is_decided(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rules, "route", fails)
    scene.client.say(f"CONNECT {scene.target} HTTP/1.1\r\nHost: {scene.target}\r\n\r\n".encode())
    scene.end(told="refused")


def test_a_fault_when_a_name_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dial, "_found", fails)
    scene.client.say(f"CONNECT {scene.target} HTTP/1.1\r\nHost: {scene.target}\r\n\r\n".encode())
    scene.end(told="close")


def test_a_fault_when_the_way_is_open(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_grant", fails)
    scene.client.say(f"CONNECT {scene.target} HTTP/1.1\r\nHost: {scene.target}\r\n\r\n".encode())
    scene.end(told="close")


def test_a_fault_when_it_is_recorded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_was_recorded", fails)
    scene.client.say(f"CONNECT {scene.target} HTTP/1.1\r\nHost: {scene.target}\r\n\r\n".encode())
    scene.end(told="close")


def test_a_fault_when_its_time_is_over(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.client.say(b"CONNECT ")
    scene.house.turn(3)
    monkeypatch.setattr(Front, "expire", fails)
    scene.house.pass_time(20)
    scene.end(told="refused")


def open_tunnel(scene: Scene) -> Client:
    assert scene.client.connect(scene.target).startswith(b"HTTP/1.1 200 ")
    return scene.server.accept()


def test_a_fault_in_a_tunnel(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    far = open_tunnel(scene)
    monkeypatch.setattr(splice, "splice", fails_once(splice.splice))
    scene.client.say(b"bytes")
    with pytest.raises(ConnectionResetError):
        far.hear()
    far.socket.close()
    scene.end(told="close")


def test_a_fault_in_a_tunnels_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    far = open_tunnel(scene)
    monkeypatch.setattr(Relay, "_finish", fails)
    far.socket.close()
    scene.end(told="close")


def test_a_fault_when_the_rules_change(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    far = open_tunnel(scene)
    monkeypatch.setattr(Connection, "_judge_address", fails_once(Connection._judge_address))
    failing = [scene.house.egress._sessions["s"]]
    connections = failing[0]._connections
    mine = max(connections, key=lambda one: one._seq)
    failing[0]._connections = {mine}
    answer = scene.house.ask(Change(id=0, session="s", egress=scene.egress, close_forbidden=True))
    failing[0]._connections |= connections - {mine}
    assert isinstance(answer, Done)
    far.socket.close()
    scene.end(told="close")


def test_a_fault_in_an_exchange(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.client.say(f"GET http://{scene.target}/ HTTP/1.1\r\nHost: {scene.target}\r\n\r\n".encode())
    far = scene.server.accept()
    far.hear(until=b"\r\n\r\n")
    monkeypatch.setattr(Exchange, "_understand", fails)
    far.say(b"HTTP/1.1 200 OK\r\n\r\n")
    far.hear()
    far.socket.close()
    scene.end(told="close")


def test_a_fault_while_it_says_goodbye(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told what there is to tell: the log alone has it."""
    scene.client.say(b"CONNECT elsewhere.example:1 HTTP/1.1\r\nHost: elsewhere.example:1\r\n\r\n")
    scene.client.hear(until=b"\r\n\r\n")
    monkeypatch.setattr(Farewell, "_close", fails_once(Farewell._close))
    scene.client.end()
    scene.house.until(lambda: scene.written)
    scene.house.until(lambda: scene.house.count().connections == 1)
    scene.client.socket.close()
    scene.turn_and_collect()
    assert open_fds() == scene.fds


def test_an_end_that_cannot_be_told_ends_the_program(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    far = open_tunnel(scene)
    monkeypatch.setattr(Record, "_compose", fails)
    far.socket.close()
    scene.client.socket.close()
    with pytest.raises(Broken):
        scene.house.turn(10)
    monkeypatch.undo()


def test_what_was_asked_of_the_loop_is_not_called_after_a_fault() -> None:
    loop = Loop(clock := Clock())
    told, called = list[str](), list[int]()
    fence = Fence(loop, Faults(clock, lambda _: None), told.append)
    near, far = tcp_pair()
    fence.register(near.fileno(), IN, called.append)
    fence.call_later(1, lambda: called.append(1))
    fence.guard(fails)()
    far.send(b"x")
    clock.now += 2
    assert loop.turn(0) == 0
    assert (called, len(told)) == ([], 1)
    for connection in (near, far):
        connection.close()
    loop.close()


def test_a_fault_after_the_end_is_noted_and_nobody_is_told() -> None:
    loop = Loop(clock := Clock())
    told, written = list[str](), list[str]()
    fence = Fence(loop, Faults(clock, written.append), told.append)
    fence.outlive()
    assert fence.run(fails) is None
    assert (told, len(written)) == ([], 1)
    loop.close()
