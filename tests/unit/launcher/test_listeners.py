"""What is made without a tree, with visits that go nowhere; tests/root/test_listeners.py makes them inside sessions."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from coworkd.launcher import listeners as room
from coworkd.launcher.listeners import Listeners, make_socket
from coworkd.system.namespaces import NetworkVisits
from tests.unit.launcher.launcher_room import OPEN, open_fds


class FakeVisits:
    """Stays where it is, and notes where it would have been."""

    def __init__(self) -> None:
        self.visited: list[int] = []

    @contextlib.contextmanager
    def visit(self, network_namespace: int) -> Iterator[None]:
        self.visited.append(network_namespace)
        yield


@pytest.fixture
def visits() -> FakeVisits:
    return FakeVisits()


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(room, "_PORTS", (0, 0))
    before = open_fds()
    yield
    assert open_fds() == before


def listeners(visits: FakeVisits) -> Listeners:
    return Listeners(cast(NetworkVisits, visits), OPEN)


def test_the_builder_is_told_of_two_sockets_without_a_name(visits: FakeVisits) -> None:
    made = listeners(visits)
    assert [each.path for each in made.to_place] == [b"/tmp/claude-http-bob.sock", b"/tmp/claude-socks-bob.sock"]
    for each in made.to_place:
        assert (each.uid, each.gid, each.backlog >= 512) == (OPEN.uid, OPEN.gid, True)
        with socket.socket(fileno=os.dup(each.fd)) as unix:
            assert (unix.family, unix.getsockname()) == (socket.AF_UNIX, "")
    made.close()


def test_what_is_taken_are_all_four(visits: FakeVisits) -> None:
    made = listeners(visits)
    made.open_ports(7)
    taken = [socket.socket(fileno=fd) for fd in made.take()]
    made.close()
    assert visits.visited == [7, 7]
    assert [each.family for each in taken] == [socket.AF_UNIX] * 2 + [socket.AF_INET] * 2
    for each in taken:
        assert not os.get_blocking(each.fileno())
        assert not os.get_inheritable(each.fileno())
        if each.family == socket.AF_INET:
            assert each.getsockname()[0] == "127.0.0.1"
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        each.close()


def test_ports_that_cannot_be_had_leave_nothing(visits: FakeVisits, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(room, "_PORTS", (0, other.getsockname()[1]))
        made = listeners(visits)
        with pytest.raises(OSError, match="in use"):
            made.open_ports(7)
        made.close()


def test_sockets_that_cannot_be_had_leave_nothing(visits: FakeVisits, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = socket.socket, list[socket.socket]()

    def refuse_second(*arguments: int) -> socket.socket:
        if made:
            raise OSError(24, "Too many open files")
        made.append(make(*arguments))
        return made[0]

    monkeypatch.setattr(socket, "socket", refuse_second)
    with pytest.raises(OSError, match="Too many"):
        listeners(visits)
    assert made[0].fileno() == -1


@pytest.mark.parametrize(("ipv6", "family"), [(False, socket.AF_INET), (True, socket.AF_INET6)])
def test_a_socket_to_order_is_made_during_a_visit(visits: FakeVisits, ipv6: bool, family: int) -> None:
    with make_socket(cast(NetworkVisits, visits), 9, ipv6=ipv6) as made:
        assert (made.family, made.type & socket.SOCK_STREAM, made.getsockname()[1]) == (family, socket.SOCK_STREAM, 0)
        assert not os.get_blocking(made.fileno())
    assert visits.visited == [9]
