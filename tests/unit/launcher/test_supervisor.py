from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coworkd.launcher import supervisor as room
from coworkd.launcher.readers import Readers
from coworkd.launcher.supervisor import Supervisor
from coworkd.model import launch
from coworkd.system import packet
from tests.unit.launcher.launcher_room import open_fds


class House:
    """A supervisor's seat; `handled` is what was asked, `fails` what comes of it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen()
        self.readers = Readers()
        self.handled: list[launch.Request] = []
        self.fails: Exception | None = None
        self.gone = 0
        self.take = False
        self.taken: list[int] = []
        self.seat = Supervisor(self.listener, self.readers, handle=self._handle, on_gone=self._on_gone)
        self.seat.listen()
        self.clients: list[socket.socket] = []

    def _handle(self, request: launch.Request, fds: list[int]) -> None:
        self.handled.append(request)
        if self.fails is not None:
            raise self.fails
        if self.take:
            self.taken.append(fds.pop())

    def _on_gone(self) -> None:
        self.gone += 1

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(60)
        client.connect(self.path)
        self.clients.append(client)
        self.turn()
        return client

    def turn(self) -> None:
        self.readers.call_ready(0)
        self.seat.settle()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.turn()
        self.turn()
        self.listener.close()
        self.readers.close()
        for fd in self.taken:
            os.close(fd)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(room, "peer_uid", lambda connection: 0)
    before = open_fds()
    made = House(tmp_path / "s")
    yield made
    made.close()
    assert open_fds() == before


def ask(client: socket.socket, request: launch.Request, *fds: int) -> None:
    data, ancillary, _ = packet.pack(msgspec.msgpack.encode(request), fds)
    client.sendmsg(data, ancillary)


def hear(client: socket.socket) -> Any:
    message, fds = packet.unpack(*client.recvmsg(*packet.RECEIVE_ARGUMENTS)[:3])
    for fd in fds:
        os.close(fd)
    return msgspec.msgpack.decode(message, type=launch.Reply)


def test_a_request_is_handled_and_answered(house: House) -> None:
    assert house.seat.alone_since is not None
    client = house.connect()
    assert house.seat.alone_since is None
    ask(client, launch.Ping(id=1))
    ask(client, launch.Ping(id=2))
    house.turn()
    assert house.handled == [launch.Ping(id=1), launch.Ping(id=2)]
    house.seat.send(launch.Done(id=2))
    assert hear(client) == launch.Done(id=2)


def test_what_is_only_told_has_no_answer(house: House) -> None:
    client = house.connect()
    house.seat.send(launch.Done(id=0))
    house.seat.refuse(0, "busy", errno.EBUSY, "the command still runs")
    house.seat.send(launch.Done(id=1))
    assert hear(client) == launch.Done(id=1)


@pytest.mark.parametrize("take", [False, True])
def test_descriptors_are_closed_unless_they_were_taken(house: House, take: bool) -> None:
    house.take = take
    client = house.connect()
    fd = os.memfd_create("kept")
    ask(client, launch.Keep(id=1, process="p", name="tty"), fd)
    os.close(fd)
    before = open_fds()
    house.turn()
    assert len(open_fds() - before) == len(house.taken) == int(take)


def test_a_lack_of_one_request_is_its_refusal_and_ends_nothing(house: House) -> None:
    client = house.connect()
    house.fails = OSError(errno.EMFILE, "Too many open files")
    ask(client, launch.Ping(id=7))
    house.turn()
    assert hear(client) == launch.Refused(
        id=7, stage="resources", errno=errno.EMFILE, message="Ping: Too many open files"
    )
    house.fails = None
    ask(client, launch.Ping(id=8))
    house.turn()
    assert house.gone == 0


@pytest.mark.parametrize("fails", [ValueError("embedded null byte"), OverflowError("cannot convert float infinity")])
def test_a_value_no_kernel_takes_is_its_requests_refusal(house: House, fails: Exception) -> None:
    client = house.connect()
    house.fails = fails
    ask(client, launch.Ping(id=7))
    house.turn()
    assert hear(client) == launch.Refused(id=7, stage="request", errno=errno.EINVAL, message=f"Ping: {fails}")


def test_a_mistake_of_ours_is_not_hidden(house: House) -> None:
    client = house.connect()
    house.fails = RuntimeError("ours")
    ask(client, launch.Ping(id=7))
    with pytest.raises(RuntimeError, match="ours"):
        house.turn()


def test_a_second_one_is_sent_away_while_the_first_lives(house: House) -> None:
    first = house.connect()
    second = house.connect()
    assert second.recv(10) == b""
    ask(first, launch.Ping(id=1))
    house.turn()
    assert len(house.handled) == 1


def test_one_that_is_not_root_is_sent_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "peer_uid", lambda connection: 1001)
    assert house.connect().recv(10) == b""
    assert house.seat.alone_since is not None


def test_one_that_goes_is_told_once_and_followed(house: House) -> None:
    house.connect().close()
    house.turn()
    house.turn()
    assert house.gone == 1
    assert house.seat.alone_since is not None
    house.seat.send(launch.Done(id=1))  # nobody hears it
    ask(house.connect(), launch.Ping(id=1))
    house.turn()
    assert len(house.handled) == 1


def test_one_that_comes_back_in_the_same_round_is_let_in(house: House) -> None:
    house.connect().close()
    ask(house.connect(), launch.Ping(id=5))
    house.turn()
    assert house.handled == [launch.Ping(id=5)]
    assert house.gone == 1


def test_what_does_not_fit_comes_later_and_in_order(house: House) -> None:
    client = house.connect()
    for number in range(1, 501):
        house.seat.send(launch.Done(id=number, degraded=("x" * 5000,)))
    heard: list[int] = []
    while len(heard) < 500:
        house.turn()
        heard.append(hear(client).id)
    assert heard == list(range(1, 501))
