"""Endpoints of every kind, for the blocking client and for trio: one suite, real sockets and a pty for the port."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from coworkd.client import aio_dial, dial
from coworkd.model.errors import Unavailable
from coworkd.wire.endpoint import Endpoint, HybridEndpoint, UnixEndpoint, VirtioEndpoint, VsockEndpoint
from coworkd.wire.resync import MARK, NONCE_BYTES

Talk = Callable[[Endpoint], tuple[bytes, bytes]]
"""Dial, send `hello!`, and return the first bytes of the handshake and what came then."""


def talk_blocking(endpoint: Endpoint) -> tuple[bytes, bytes]:
    dialled = dial.dial(endpoint, timeout_s=5)
    try:
        dialled.stream.sendall(b"hello!")
        return dialled.first, dialled.stream.recv(100)
    finally:
        dialled.stream.close()


def talk_trio(endpoint: Endpoint) -> tuple[bytes, bytes]:
    async def main() -> tuple[bytes, bytes]:
        with trio.fail_after(60):
            stream, first = await aio_dial.dial(endpoint)
            async with stream:
                await stream.send_all(b"hello!")
                return first, bytes(await stream.receive_some(100))

    return trio.run(main)


MARK_BYTES = 1 + NONCE_BYTES
both = pytest.mark.parametrize("talk", [talk_blocking, talk_trio])


class Listener:
    """Accepts once and runs `serve` on the connection."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._serve = serve
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connected, _ = self._socket.accept()
        with connected:
            self._serve(connected)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        self._socket.close()


def echo_hello(connected: socket.socket) -> None:
    assert connected.recv(6, socket.MSG_WAITALL) == b"hello!"
    connected.sendall(b"hi")


@both
def test_a_unix_socket(talk: Talk, tmp_path: Path) -> None:
    with Listener(tmp_path / "s", echo_hello):
        assert talk(UnixEndpoint(path=str(tmp_path / "s"))) == (b"", b"hi")


@both
def test_a_hybrid_socket_is_asked_for_the_port_and_early_bytes_are_kept(talk: Talk, tmp_path: Path) -> None:
    def serve(connected: socket.socket) -> None:
        assert connected.recv(13, socket.MSG_WAITALL) == b"CONNECT 5005\n"
        connected.sendall(b"OK 1073741824\nearly")
        echo_hello(connected)

    with Listener(tmp_path / "s", serve):
        assert talk(HybridEndpoint(path=str(tmp_path / "s"), port=5005)) == (b"early", b"hi")


@both
@pytest.mark.parametrize("answer", [b"", b"NO\n", b"x" * 100])
def test_a_hybrid_socket_that_does_not_say_ok_is_unavailable(talk: Talk, answer: bytes, tmp_path: Path) -> None:
    def serve(connected: socket.socket) -> None:
        connected.recv(100)
        connected.sendall(answer)

    with Listener(tmp_path / "s", serve), pytest.raises(Unavailable, match="hybrid://"):
        talk(HybridEndpoint(path=str(tmp_path / "s"), port=5005))


def read_past_marks(read: Callable[[], bytes], write: Callable[[bytes], object]) -> bytes:
    """Six bytes of the link. Every mark before them is answered: a host that waits a second sends another."""
    received = b""
    while True:
        received += read()
        while len(received) >= MARK_BYTES and received[0] == MARK:
            write(received[:MARK_BYTES])
            received = received[MARK_BYTES:]
        if received and received[0] != MARK and len(received) >= 6:
            return received


@both
def test_the_unix_socket_of_a_ports_other_end_is_resynced(talk: Talk, tmp_path: Path) -> None:
    def serve(connected: socket.socket) -> None:
        connected.sendall(b"\x94\x00\x05 an old half")
        assert read_past_marks(lambda: connected.recv(100), connected.sendall) == b"hello!"
        connected.sendall(b"hi")

    with Listener(tmp_path / "s", serve):
        assert talk(VirtioEndpoint(path=str(tmp_path / "s"))) == (b"", b"hi")


@both
def test_late_answers_to_a_mark_that_was_repeated_are_nobodys(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dial, aio_dial):
        monkeypatch.setattr(module, "RESYNC_INTERVAL_S", 0.5)

    def serve(connected: socket.socket) -> None:
        marks = b""
        while len(marks) < 2 * MARK_BYTES:
            marks += connected.recv(100)
        connected.sendall(marks[:MARK_BYTES])
        connected.settimeout(0.1)  # the host has nothing more to say before the other answer
        with pytest.raises(TimeoutError):
            connected.recv(100)
        connected.settimeout(None)
        connected.sendall(marks[MARK_BYTES:])
        assert read_past_marks(lambda: connected.recv(100), connected.sendall) == b"hello!"
        connected.sendall(b"hi")

    with Listener(tmp_path / "s", serve):
        assert talk(VirtioEndpoint(path=str(tmp_path / "s"))) == (b"", b"hi")


@both
def test_a_port_is_opened_raw_and_resynced(talk: Talk) -> None:
    master, slave = os.openpty()

    def serve() -> None:
        assert read_past_marks(lambda: os.read(master, 100), lambda data: os.write(master, data)) == b"hello!"
        os.write(master, b"hi")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert talk(VirtioEndpoint(path=os.ttyname(slave))) == (b"", b"hi")
    finally:
        thread.join(60)
        os.close(slave)
        os.close(master)


@both
def test_where_nothing_is_it_says_what_to_look_at(talk: Talk, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is coworkd running") as caught:
        talk(UnixEndpoint(path=str(tmp_path / "none")))
    assert caught.value.details["errno"] == 2


def test_a_silent_monitor_ends_at_the_deadline(tmp_path: Path) -> None:
    def read_to_the_end(connected: socket.socket) -> None:
        while connected.recv(100):
            continue

    with Listener(tmp_path / "s", read_to_the_end), pytest.raises(Unavailable, match="in time"):
        dial.dial(HybridEndpoint(path=str(tmp_path / "s"), port=1), timeout_s=0.05)


@pytest.mark.parametrize(
    ("endpoint", "error", "says"),
    [
        (VsockEndpoint(cid=3, port=1), OSError(19, "No such device"), "is the VM up"),
        (UnixEndpoint(path="/a"), PermissionError(13, "Permission denied"), "sudo"),
        (UnixEndpoint(path="/a"), TimeoutError("timed out"), "no answer in time"),
    ],
)
def test_every_failure_has_its_remedy(endpoint: Endpoint, error: OSError, says: str) -> None:
    assert says in dial.unreachable(endpoint, error).message


def test_a_system_without_vsock_is_told_of_the_hybrid_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.AF_VSOCK")
    with pytest.raises(Unavailable, match="hybrid:///"):
        dial.dial(VsockEndpoint(cid=3, port=5005), timeout_s=1)


@both
def test_a_full_backlog_is_waited_for(talk: Talk, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as before_us:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        before_us.connect(str(tmp_path / "s"))

        def accept_both() -> None:
            for _ in range(2):
                connected, _ = listener.accept()
                with connected:
                    if connected.recv(6):
                        connected.sendall(b"here")

        accepting = threading.Timer(0.05, accept_both)
        accepting.start()
        threading.Timer(0.1, before_us.shutdown, (socket.SHUT_WR,)).start()
        try:
            assert talk(UnixEndpoint(path=str(tmp_path / "s"))) == (b"", b"here")
        finally:
            accepting.join()
