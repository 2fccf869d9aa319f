from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from coworkd.model.errors import AlreadyExists, Unavailable
from coworkd.rpc import listen
from coworkd.rpc.listen import RefusedPeer, UnixAcceptor, VsockAcceptor
from coworkd.rpc.turns import GATHER_BYTES
from coworkd.wire.endpoint import UnixEndpoint, VsockPort


def endpoint(directory: Path) -> UnixEndpoint:
    return UnixEndpoint(path=str(directory / "s"))


def test_unix_socket_is_private_accepts_and_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        acceptor = UnixAcceptor(endpoint(tmp_path))
        assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            client.sendall(b"hi")
            transport, peer = await acceptor.accept()
            assert await transport.receive(10) == b"hi"
            assert peer == f"pid {os.getpid()} uid {os.getuid()}"
            transport.close()
        acceptor.close()
        acceptor.close()
        assert not (tmp_path / "s").exists()

    trio.run(main)


def test_a_unix_link_takes_a_gathering_send_whole_where_the_kernel_allows_it(tmp_path: Path) -> None:
    async def main() -> None:
        acceptor = UnixAcceptor(endpoint(tmp_path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            transport, _ = await acceptor.accept()
            taken = transport.send_nowait(bytes(GATHER_BYTES))
            allowed = int(Path("/proc/sys/net/core/wmem_max").read_text())
            assert taken == GATHER_BYTES or (allowed < GATHER_BYTES and taken >= allowed // 2)
            transport.close()
        acceptor.close()

    trio.run(main)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(tmp_path / "s"))
        acceptor = UnixAcceptor(endpoint(tmp_path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
        acceptor.close()

    trio.run(main)


def test_a_socket_in_use_is_left_alone_even_with_a_full_backlog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "s"))
        old.listen(0)
        with pytest.raises(AlreadyExists, match="another coworkd"):
            UnixAcceptor(endpoint(tmp_path))  # its probe fills the backlog
        with pytest.raises(AlreadyExists, match="another coworkd"):
            UnixAcceptor(endpoint(tmp_path))
    assert (tmp_path / "s").exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(AlreadyExists, match="no socket"):
        UnixAcceptor(endpoint(tmp_path))
    assert (tmp_path / "s").read_text() == "precious"


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does its directory exist") as caught:
        UnixAcceptor(endpoint(tmp_path / "nowhere"))
    assert caught.value.details["path"].endswith("/nowhere/s")


def test_close_leaves_a_socket_that_took_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        acceptor = UnixAcceptor(endpoint(tmp_path))
        os.unlink(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "s"))
        acceptor.close()
        assert (tmp_path / "s").exists()

    trio.run(main)


class FakeVsockListener(trio.socket.SocketType):
    """Accepts the ends of socket pairs, each from the CID given."""

    def __init__(self, *cids: int) -> None:
        self._cids = list(cids)
        self.peers: list[socket.socket] = []
        self.closed = False

    async def accept(self) -> tuple[trio.socket.SocketType, object]:
        await trio.lowlevel.checkpoint()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.peers.append(theirs)
        return trio.socket.from_stdlib_socket(ours), (self._cids.pop(0), 1024)

    def close(self) -> None:
        self.closed = True


def test_vsock_accepts_the_host_and_no_other_cid() -> None:
    async def main() -> None:
        listener = FakeVsockListener(3, 2)
        acceptor = VsockAcceptor(VsockPort(port=5005), listener)
        with pytest.raises(RefusedPeer, match="cid 3"):
            await acceptor.accept()
        assert listener.peers[0].recv(1) == b""
        transport, peer = await acceptor.accept()
        listener.peers[1].sendall(b"x")
        assert (await transport.receive(1), peer) == (b"x", "cid 2 port 1024")
        transport.close()
        acceptor.close()
        for each in listener.peers:
            each.close()
        assert listener.closed

    trio.run(main)


def test_vsock_without_a_device_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(port: int) -> socket.socket:
        raise OSError(19, "No such device")

    monkeypatch.setattr(listen, "open_vsock_listener", refuse)
    with pytest.raises(Unavailable, match="vsock device") as caught:
        VsockAcceptor.open(VsockPort(port=5005))
    assert caught.value.details["errno"] == 19


def test_a_socket_that_was_handed_on_is_listened_on_with_who_waits_in_it(tmp_path: Path) -> None:
    async def main() -> None:
        first = UnixAcceptor(endpoint(tmp_path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            client.sendall(b"hi")
            second = UnixAcceptor(endpoint(tmp_path), os.dup(first.fileno()))
            transport, _ = await second.accept()
            assert await transport.receive(10) == b"hi"
            transport.close()
        second.close()
        assert not (tmp_path / "s").exists()
        first.close()

    trio.run(main)
