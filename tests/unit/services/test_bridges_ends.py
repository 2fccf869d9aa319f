"""`services.bridges_ends`: who may connect, where, and what is left afterwards."""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from coworkd.model.bridge import SessionEnd, TcpEnd, UnixEnd, VsockEnd
from coworkd.model.errors import AlreadyExists, InvalidState, NotFound, PolicyDenied
from coworkd.services.bridges_ends import Ends, Listener
from tests.unit.services.bridge_house import dial, free_port
from tests.unit.services.process_house import in_trio, open_fds, settle
from tests.unit.services.stream_house import Directory, SocketLauncher


def make_ends(**options: Any) -> Ends:
    return Ends(sessions=Directory(), launcher=SocketLauncher(), **{"own_sockets": (), **options})


async def meet(ends: Ends, listener: Listener, end: Any) -> None:
    """What connects to `end` arrives at `listener`."""
    connected = await ends.connect(end)
    accepted = await listener.accept()
    accepted.send(b"met")
    await settle()
    assert connected.recv(10) == b"met"
    assert not connected.getblocking()
    for each in (connected, accepted):
        each.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@in_trio
async def test_tcp(host: str) -> None:
    before = open_fds()
    ends, end = make_ends(), TcpEnd(host=host, port=free_port())
    listener = await ends.listen(end)
    await meet(ends, listener, end)
    with pytest.raises(OSError) as caught:
        await ends.listen(end)
    assert caught.value.errno == errno.EADDRINUSE
    listener.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await ends.connect(end)
    assert open_fds() == before


@in_trio
async def test_a_name_is_tried_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, port = make_ends(), free_port()
    listener = await ends.listen(TcpEnd(host="127.0.0.1", port=port))

    async def look_up(host: str, port: int, *, type: int) -> list[Any]:
        stream = (socket.SOCK_STREAM, 0, "")
        return [
            (socket.AF_INET6, *stream, ("::1", port, 0, 0)),
            (socket.AF_INET, *stream, ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(trio.socket, "getaddrinfo", look_up)
    await meet(ends, listener, TcpEnd(host="db.example", port=port))
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await ends.connect(TcpEnd(host="db.example", port=port))

    async def nothing(*_: Any, **__: Any) -> list[Any]:
        return []

    monkeypatch.setattr(trio.socket, "getaddrinfo", nothing)
    with pytest.raises(OSError, match="no address"):
        await ends.connect(TcpEnd(host="db.example", port=port))


@in_trio
async def test_a_session() -> None:
    before = open_fds()
    ends, end = make_ends(), SessionEnd(session="work", port=free_port())
    listener = await ends.listen(end)
    assert listener.address == ("127.0.0.1", end.port)
    assert await ends.network_of("work") == listener.network
    await meet(ends, listener, end)
    listener.close()
    with pytest.raises(InvalidState, match="by nobody"):
        await ends.connect(end)
    for verb in (ends.listen, ends.connect):
        with pytest.raises(NotFound):
            await verb(SessionEnd(session="other", port=1))
    with pytest.raises(NotFound):
        await ends.network_of("other")
    assert open_fds() == before


@in_trio
async def test_a_unix_socket_is_for_root_alone_and_goes_with_its_listener(tmp_path: Path) -> None:
    before = open_fds()
    ends, end = make_ends(), UnixEnd(path=str(tmp_path / "x.sock"))
    listener = await ends.listen(end)
    assert stat.S_IMODE((tmp_path / "x.sock").stat().st_mode) == 0o600
    await meet(ends, listener, end)
    with pytest.raises(AlreadyExists, match="listens on"):
        await ends.listen(end)
    listener.close()
    assert not (tmp_path / "x.sock").exists()
    with pytest.raises(FileNotFoundError):
        await ends.connect(end)
    assert open_fds() == before


@in_trio
async def test_a_stale_socket_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    ends, path = make_ends(), tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener = await ends.listen(UnixEnd(path=str(path)))
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"
    with pytest.raises(AlreadyExists, match="no socket"):
        await ends.listen(UnixEnd(path=str(path)))


@in_trio
async def test_a_path_that_may_not_be_used_is_refused_on_either_side(tmp_path: Path) -> None:
    own = str(tmp_path / "coworkd.sock")
    ends = make_ends(own_sockets=(own,))
    for verb in (ends.listen, ends.connect):
        with pytest.raises(PolicyDenied):
            await verb(UnixEnd(path=own))


class VsockListener(socket.socket):
    """Says of each connection that it came from the next CID of `cids`."""

    cids: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, _ = super().accept()
        return accepted, (self.cids.pop(0), 1234)


@in_trio
async def test_over_vsock_only_the_host_may_connect(tmp_path: Path) -> None:
    before = open_fds()
    fake = VsockListener(socket.AF_UNIX)
    fake.cids = [3, 1, 2]
    fake.bind(str(tmp_path / "vsock"))
    fake.listen()
    asked: list[int] = []

    def listen(port: int) -> socket.socket:
        asked.append(port)
        return fake

    listener = await make_ends(listen_vsock=listen).listen(VsockEnd(cid=None, port=7000))
    peers = [dial(tmp_path / "vsock") for _ in range(3)]
    accepted = await listener.accept()
    accepted.send(b"in")
    assert [peer.recv(10) for peer in peers] == [b"", b"", b"in"]
    assert asked == [7000]
    for each in (*peers, accepted):
        each.close()
    listener.close()
    assert open_fds() == before


class VsockSocket(socket.socket):
    """Notes where it was to connect, and is connected."""

    asked: list[Any]

    def connect_ex(self, address: Any) -> int:
        self.asked.append(address)
        return 0


@in_trio
async def test_over_vsock_it_connects_to_the_cid_and_port() -> None:
    made = VsockSocket(socket.AF_UNIX)
    made.asked = []
    connected = await make_ends(open_vsock=lambda: made).connect(VsockEnd(cid=2, port=5009))
    assert connected is made
    assert made.asked == [(2, 5009)]
    made.close()
