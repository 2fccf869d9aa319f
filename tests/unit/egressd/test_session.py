from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.egressd.loop import Loop
from coworkd.model.egress import EgressLimits
from tests.unit.egressd.egress_house import House, open_house, session_egress
from tests.unit.egressd.sockets import open_fds


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    before = open_fds()
    with open_house(str(tmp_path), monkeypatch) as opened:
        opened.begin()
        yield opened
    assert open_fds() == before


def test_a_lack_of_descriptors_pauses_and_does_not_turn_the_loop(house: House) -> None:
    proxy = house.serve(session_egress("server.example"))
    client = house.client(proxy)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        house.egress.loop.turn(0.01)
        assert house.egress.loop.turn(0) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert house.count().connections == 0
    house.clock.now += 0.2
    house.until(lambda: house.count().connections == 1)
    assert client.connect("elsewhere.example:443").startswith(b"HTTP/1.1 403 ")


def test_a_lack_of_descriptors_for_the_way_out_is_unavailable(house: House) -> None:
    client = house.client(house.serve(session_egress("server.example")))
    house.turn(3)
    client.say(b"CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\n\r\n")
    house.records = False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    house.egress.state.means.own._known["127.0.0.2"] = False
    house.egress.state.means.resolver.resolve("s", "server.example", lambda _: None)  # its thread and its eventfd
    house.turn(5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        house.egress.loop.turn(0.01)
        for _ in range(20):
            house.egress.loop.turn(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    house.records = True
    assert client.hear()[9:12] in (b"502", b"503")


def test_a_lack_of_memory_for_the_listeners_passes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = house.serve(session_egress("server.example", limits=EgressLimits(connections=1)))
    clients = [house.client(proxy) for _ in range(3)]
    house.until(lambda: house.count().connections == 2)
    monkeypatch.setattr(Loop, "register", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    for client in clients[:2]:
        client.socket.close()
    house.until(lambda: house.count().connections == 0)
    house.turn(3)
    monkeypatch.undo()
    house.pass_time(0.3)
    house.until(lambda: house.count().connections == 1)


def test_one_who_only_connects_does_not_hold_up_others(house: House) -> None:
    server = house.server()
    proxy = house.serve(session_egress("server.example"))
    silent = [house.client(proxy) for _ in range(100)]
    assert house.client(proxy).connect(f"server.example:{server.port}").startswith(b"HTTP/1.1 200 ")
    for client in silent:
        client.socket.close()
    house.until(lambda: house.count().connections == 1)


def test_many_at_once_are_all_accepted(house: House) -> None:
    proxy = house.serve(session_egress("server.example"))
    clients = [house.client(proxy) for _ in range(300)]
    house.until(lambda: house.count().connections == 300)
    for client in clients:
        client.say(b"CONNECT elsewhere.example:1 HTTP/1.1\r\nHost: elsewhere.example:1\r\n\r\n")
    for client in clients:
        assert client.hear().startswith(b"HTTP/1.1 403 ")
    house.pass_time(1)
    assert sum(event.count for event in house.events) == 300
    assert len(house.events) == 2


def test_tokens_come_back_up_to_the_burst_and_no_further(house: House) -> None:
    proxy = house.serve(session_egress("server.example", limits=EgressLimits(rate_per_s=100, burst=3)))
    house.pass_time(60)
    codes = []
    for _ in range(5):
        client = house.client(proxy)
        codes.append(client.connect("elsewhere.example:1")[9:12])
        client.socket.close()
    assert codes == [b"403", b"403", b"403", b"429", b"429"]


def test_a_connection_that_was_reset_in_the_backlog_is_passed_over(house: House) -> None:
    proxy = house.serve(session_egress("server.example"))
    gone = socket.create_connection(proxy)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    gone.close()
    assert house.client(proxy).connect("elsewhere.example:1").startswith(b"HTTP/1.1 403 ")
