"""The unix sockets and their names, with visits that go nowhere; tests/root/test_listeners.py makes them inside sessions."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from msgspec import structs

from coworkd.launcher import listeners as room
from coworkd.launcher.listeners import ListenerPlace, Listeners, make_socket
from coworkd.model.launch import TreeFileBind
from coworkd.system.namespaces import NetworkVisits
from tests.unit.launcher.launcher_room import OPEN, open_fds

REQUEST = structs.replace(OPEN, uid=os.getuid(), gid=os.getgid())


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


@pytest.fixture
def place(tmp_path: Path, visits: FakeVisits, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListenerPlace]:
    monkeypatch.setattr(room, "_PORTS", (0, 0))
    before = open_fds()
    made = ListenerPlace(os.fsencode(tmp_path), cast(NetworkVisits, visits))
    yield made
    made.close()
    made.close()
    assert open_fds() == before
    assert list(tmp_path.iterdir()) == []


def names(place: ListenerPlace) -> list[str]:
    return sorted(os.listdir(os.fsdecode(place.path)))


def test_two_sockets_have_names_that_only_their_owner_can_use(place: ListenerPlace) -> None:
    made = Listeners(place, REQUEST)
    assert len(names(place)) == 2
    assert stat.S_IMODE(os.stat(place.path).st_mode) == 0o700
    for name in names(place):
        status = os.lstat(os.path.join(place.path, name.encode()))
        assert (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)) == (True, 0o600)
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.path.join(place.path, name.encode()))
    made.close()
    assert names(place) == []


def test_the_entries_bind_them_read_only_into_tmp(place: ListenerPlace) -> None:
    made = Listeners(place, REQUEST)
    assert [entry.path for entry in made.entries] == [b"/tmp/claude-http-bob.sock", b"/tmp/claude-socks-bob.sock"]
    for entry, name in zip(made.entries, names(place), strict=True):
        source = os.path.join(place.path, name.encode())
        assert entry == TreeFileBind(source=source, path=entry.path, read_only=True, make=True)
    made.close()


def test_what_is_taken_listens_and_has_no_name(place: ListenerPlace, visits: FakeVisits) -> None:
    made = Listeners(place, REQUEST)
    made.open_ports(7)
    taken = [socket.socket(fileno=fd) for fd in made.take()]
    made.close()
    assert visits.visited == [7, 7]
    assert names(place) == []
    assert [each.family for each in taken] == [socket.AF_UNIX] * 2 + [socket.AF_INET] * 2
    for each in taken:
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert not os.get_blocking(each.fileno())
        assert not os.get_inheritable(each.fileno())
        if each.family == socket.AF_INET:
            assert each.getsockname()[0] == "127.0.0.1"
        each.close()


def test_sessions_do_not_share_names(place: ListenerPlace) -> None:
    made = [Listeners(place, REQUEST) for _ in range(3)]
    assert len(names(place)) == 6
    made[1].close()
    assert len(names(place)) == 4
    for each in made:
        each.close()


def test_ports_that_cannot_be_had_leave_nothing(place: ListenerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(room, "_PORTS", (0, other.getsockname()[1]))
        made = Listeners(place, REQUEST)
        with pytest.raises(OSError, match="in use"):
            made.open_ports(7)
        made.close()


def test_a_socket_that_cannot_be_given_away_leaves_nothing(
    place: ListenerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    before = open_fds()
    with pytest.raises(OSError, match="not permitted"):
        Listeners(place, REQUEST)
    assert open_fds() == before
    assert names(place) == []


def test_what_was_left_is_removed_and_a_link_is_not_followed(tmp_path: Path, visits: FakeVisits) -> None:
    left = tmp_path / "listeners"
    left.mkdir(mode=0o777)
    (left / "7").touch()
    (left / "8").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").touch()
    made = ListenerPlace(os.fsencode(tmp_path), cast(NetworkVisits, visits))
    assert names(made) == []
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    made.close()
    assert (tmp_path / "victim").exists()
    left.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(OSError, match="listeners"):
        ListenerPlace(os.fsencode(tmp_path), cast(NetworkVisits, visits))


def test_a_deep_place_is_no_hindrance(tmp_path: Path, visits: FakeVisits) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    made = ListenerPlace(os.fsencode(deep), cast(NetworkVisits, visits))
    Listeners(made, REQUEST).close()
    made.close()


@pytest.mark.parametrize(("ipv6", "family"), [(False, socket.AF_INET), (True, socket.AF_INET6)])
def test_a_socket_to_order_is_made_during_a_visit(visits: FakeVisits, ipv6: bool, family: int) -> None:
    with make_socket(cast(NetworkVisits, visits), 9, ipv6=ipv6) as made:
        assert (made.family, made.type & socket.SOCK_STREAM, made.getsockname()[1]) == (family, socket.SOCK_STREAM, 0)
        assert not os.get_blocking(made.fileno())
    assert visits.visited == [9]
