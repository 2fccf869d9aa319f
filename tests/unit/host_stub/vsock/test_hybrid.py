from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.wire.limits import RemoteProtocolError
from host_stub.vsock.hybrid import Handshake, HybridError, dial, listen, remove


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Handshake]]:
    client, ours = socket.socketpair()
    ours.setblocking(False)
    yield client, Handshake(ours, 0.0)
    client.close()
    ours.close()


def test_a_line_is_taken_and_nothing_behind_it(pair: tuple[socket.socket, Handshake]) -> None:
    client, handshake = pair
    assert handshake.read() is None
    client.send(b"CONNECT 12")
    assert handshake.read() is None
    client.send(b"34\nbehind")
    assert handshake.read() == 1234
    assert handshake.client.recv(100) == b"behind"


def test_a_client_that_left_is_an_end(pair: tuple[socket.socket, Handshake]) -> None:
    client, handshake = pair
    client.send(b"CONN")
    client.shutdown(socket.SHUT_WR)
    assert handshake.read() is None
    handshake.client.recv(4)
    with pytest.raises(EOFError):
        handshake.read()


def test_junk_is_a_breach(pair: tuple[socket.socket, Handshake]) -> None:
    client, handshake = pair
    client.send(b"GET / HTTP/1.1\r\n")
    with pytest.raises(RemoteProtocolError):
        handshake.read()


def test_sockets_are_for_their_owner_alone(tmp_path: Path) -> None:
    with listen(tmp_path / "s"):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    remove(tmp_path / "s")
    remove(tmp_path / "s")


def test_a_socket_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    listen(tmp_path / "s").close()
    with listen(tmp_path / "s"):
        pass


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    with listen(tmp_path / "s"):
        with pytest.raises(HybridError, match="in use by another"):
            listen(tmp_path / "s")
        assert (tmp_path / "s").exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(HybridError, match="no socket"):
        listen(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "mine"


def test_a_place_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(HybridError, match="cannot be listened on"):
        listen(tmp_path / "missing" / "s")


def test_a_path_without_room_for_ports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HybridError, match="too long"):
        listen(tmp_path / ("s" * 100))


def test_dial_finds_who_listens_at_a_port(tmp_path: Path) -> None:
    with listen(Path(f"{tmp_path}/s_5006")) as service:
        host = dial(tmp_path / "s", 5006, None)
        assert host is not None
        assert not host.getblocking()
        host.close()
        service.accept()[0].close()
        assert dial(tmp_path / "s", 5006, {5007}) is None
        assert dial(tmp_path / "s", 5007, None) is None
    assert dial(tmp_path / "s", 5006, None) is None
    assert os.path.exists(f"{tmp_path}/s_5006")


def test_dial_does_not_wait_for_a_full_backlog(tmp_path: Path) -> None:
    service = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    service.bind(f"{tmp_path}/s_1")
    service.listen(0)
    waiting = dial(tmp_path / "s", 1, None)
    assert waiting is not None
    assert dial(tmp_path / "s", 1, None) is None
    waiting.close()
    service.close()


def test_dial_without_a_descriptor_left_finds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_descriptors(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with listen(Path(f"{tmp_path}/s_5006")):
        monkeypatch.setattr(socket, "socket", out_of_descriptors)
        assert dial(tmp_path / "s", 5006, None) is None
