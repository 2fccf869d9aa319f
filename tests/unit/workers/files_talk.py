"""The worker of `file.*` as a process of its own, talked to as coworkd does: what the tests of its modules share."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from coworkd.model import files as words
from coworkd.system.packet import RECEIVE_ARGUMENTS, pack, unpack

REPO = Path(__file__).resolve().parents[3]
_PROGRAM = "import socket, sys; from coworkd.workers.files import serve; serve(socket.socket(fileno=int(sys.argv[1])))"
_encoder = msgspec.msgpack.Encoder()
_answers: msgspec.msgpack.Decoder[words.FromWorker] = msgspec.msgpack.Decoder(words.FromWorker)
_ends: msgspec.msgpack.Decoder[words.TransferEnd] = msgspec.msgpack.Decoder(words.TransferEnd)
A = TypeVar("A")
PATIENCE_S = 30


def receive_last(control: socket.socket) -> bytes:
    """A peer that has closed with something unread is told as a reset first, and what it said comes after."""
    try:
        return control.recv(65536)
    except ConnectionResetError:
        return control.recv(65536)


class Transfer:
    """coworkd's ends of a transfer's two sockets."""

    def __init__(self, stream: socket.socket, control: socket.socket) -> None:
        self.stream = stream
        self.control = control
        for each in (stream, control):
            each.settimeout(PATIENCE_S)

    def finish(self, size: int) -> words.TransferEnd:
        """That was all; how it ended."""
        with contextlib.suppress(BrokenPipeError):  # it has said already why it takes no more
            self.control.send(_encoder.encode(words.Finish(size=size)))
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_WR)
        return self.ended()

    def ended(self) -> words.TransferEnd:
        """How the worker says it ended; then both sockets are closed."""
        try:
            return _ends.decode(receive_last(self.control))
        finally:
            self.close()

    def read_all(self) -> bytes:
        pieces = []
        while data := self.stream.recv(1 << 18):
            pieces.append(data)
        return b"".join(pieces)

    def close(self) -> None:
        self.stream.close()
        self.control.close()


class Talk:
    """One worker's conversation."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self.connection = connection
        connection.settimeout(PATIENCE_S)
        self._last_id = 0

    def send(self, request: words.ToWorker, fds: tuple[int, ...] = ()) -> int:
        self._last_id += 1
        request = msgspec.structs.replace(request, id=self._last_id)
        buffers, ancillary, memfd = pack(_encoder.encode(request), fds)
        self.connection.sendmsg(buffers, ancillary)
        if memfd >= 0:
            os.close(memfd)
        return self._last_id

    def receive(self) -> words.FromWorker:
        data, ancillary, flags, _ = self.connection.recvmsg(*RECEIVE_ARGUMENTS)
        message, _ = unpack(data, ancillary, flags)
        assert message, "the worker has ended"
        return _answers.decode(message)

    def ask(self, request: words.ToWorker, kind: type[A], fds: tuple[int, ...] = ()) -> A:
        number = self.send(request, fds)
        answer = self.receive()
        assert answer.id == number
        assert isinstance(answer, kind), answer
        return answer

    def refused(self, request: words.ToWorker) -> words.FileFault:
        return self.ask(request, words.FileFault)

    def transfer(self, request: words.Upload | words.Download) -> tuple[words.FromWorker, Transfer]:
        ours, theirs = socket.socketpair()
        our_control, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, their_control:
            self.send(request, (theirs.fileno(), their_control.fileno()))
            answer = self.receive()
        return answer, Transfer(ours, our_control)

    # -- verbs, as the tests like them

    def read(self, path: Path | bytes, offset: int = 0, limit: int = words.READ_LIMIT_BYTES) -> words.SomeRead:
        return self.ask(words.ReadSome(id=0, path=os.fsencode(path), offset=offset, limit=limit), words.SomeRead)

    def upload(self, path: Path | bytes, data: bytes, *, tar: bool = False, mode: int = 0o644) -> words.TransferEnd:
        answer, transfer = self.transfer(upload(path, tar=tar, mode=mode))
        assert isinstance(answer, words.FileDone), answer
        try:
            transfer.stream.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return transfer.ended()
        return transfer.finish(len(data))

    def download(self, path: Path | bytes, *, tar: bool = False) -> tuple[bytes, words.TransferEnd]:
        answer, transfer = self.transfer(words.Download(id=0, path=os.fsencode(path), tar=tar))
        assert isinstance(answer, words.DownloadBegun), answer
        return transfer.read_all(), transfer.ended()


def upload(
    path: Path | bytes,
    *,
    tar: bool = False,
    mode: int = 0o644,
    mtime_ns: int | None = None,
    size: int | None = None,
    home: Path = Path("/tmp"),
) -> words.Upload:
    return words.Upload(
        id=0, path=os.fsencode(path), tar=tar, mode=mode, mtime_ns=mtime_ns, size=size, home=os.fsencode(home)
    )


def write(
    path: Path | bytes,
    data: bytes,
    *,
    mode: int = 0o644,
    append: bool = False,
    create: words.Create = "auto",
    parents: bool = False,
    home: Path = Path("/tmp"),
) -> words.WriteWhole:
    return words.WriteWhole(
        id=0,
        path=os.fsencode(path),
        data=data,
        mode=mode,
        append=append,
        create=create,
        parents=parents,
        home=os.fsencode(home),
    )


@contextmanager
def talking(*through: str, status: int = 0) -> Iterator[Talk]:
    """A worker that ends with the `with`, and with that status; `through` is an argv that becomes it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        number = theirs.fileno()
        command = [*through, sys.executable, "-c", _PROGRAM, str(number)]
        with subprocess.Popen(command, pass_fds=(number,), cwd=REPO, stderr=subprocess.DEVNULL) as child:
            theirs.close()
            yield Talk(ours, child.pid)
            ours.close()
            assert child.wait(PATIENCE_S) == status
