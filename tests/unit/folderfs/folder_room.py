"""A folder without a kernel: requests composed by hand, answers taken apart; and a server whose /dev/fuse is a socket."""

from __future__ import annotations

import gc
import os
import resource
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from coworkd.folderfs.asks import Asks
from coworkd.folderfs.folder import Answer, Folder, Operation, number_of
from coworkd.folderfs.fuse_words import ATTR, HEADER, ROOT_NODE, Op, parse_request
from coworkd.folderfs.journal import JournaledNames
from coworkd.folderfs.operations_change import OPERATIONS as CHANGE
from coworkd.folderfs.operations_look import OPERATIONS as LOOK
from coworkd.folderfs.operations_make import OPERATIONS as MAKE
from coworkd.folderfs.operations_move import OPERATIONS as MOVE
from coworkd.folderfs.operations_open import OPERATIONS as OPEN
from coworkd.folderfs.operations_remove import Removals
from coworkd.folderfs.server import serve
from coworkd.folderfs.shown import Shown
from coworkd.folderfs.told import Told
from coworkd.model.folder import Changed, DeleteRule, FolderChange, FromFolder, ToFolder
from coworkd.system import packet

UID = 4711
PID = 99
_ENTRY_BYTES = 128
_decoder: msgspec.msgpack.Decoder[FromFolder] = msgspec.msgpack.Decoder(FromFolder)
_OPERATIONS: dict[int, Operation] = {**LOOK, **OPEN, **MAKE, **CHANGE, **MOVE}
_WORDS = {
    Op.CREATE: "=IIII",
    Op.TMPFILE: "=IIII",
    Op.MKNOD: "=IIII",
    Op.MKDIR: "=II",
    Op.OPEN: "=II",
    Op.OPENDIR: "=II",
    Op.READ: "=QQIIQII",
    Op.READDIR: "=QQIIQII",
    Op.READDIRPLUS: "=QQIIQII",
    Op.WRITE: "=QQIIQII",
    Op.RELEASE: "=QIIQ",
    Op.RELEASEDIR: "=QIIQ",
    Op.FSYNC: "=QII",
    Op.FSYNCDIR: "=QII",
    Op.RENAME: "=Q",
    Op.RENAME2: "=QII",
    Op.LINK: "=Q",
    Op.GETATTR: "=IIQ",
    Op.FORGET: "=Q",
    Op.BATCH_FORGET: "=II",
    Op.LSEEK: "=QQII",
    Op.FALLOCATE: "=QQQII",
    Op.COPY_FILE_RANGE: "=QQQQQQQ",
    Op.GETXATTR: "=II",
    Op.LISTXATTR: "=II",
    Op.SETXATTR: "=II",
    Op.SETATTR: "=I4xQQQQQQIIII4xII4x",
    Op.INIT: "=IIII",
    Op.INTERRUPT: "=Q",
}


def compose_request(
    op: int,
    node: int = ROOT_NODE,
    words: tuple[int, ...] = (),
    *names: bytes,
    data: bytes = b"",
    unique: int = 1,
    pid: int = PID,
) -> bytes:
    """The bytes that the kernel would send; missing words are nil."""
    form = struct.Struct(_WORDS.get(Op(op), "="))
    missing = len(form.unpack(bytes(form.size))) - len(words)
    body = form.pack(*words, *(0,) * missing) + b"".join(name + b"\0" for name in names) + data
    return HEADER.pack(40 + len(body), op, unique, node, 0, 0, pid, 0, 0) + body


class Entry(NamedTuple):
    """struct fuse_entry_out, as far as tests want it, and what follows."""

    node: int
    inode: int
    size: int
    mode: int
    uid: int
    links: int
    rest: bytes


def parse_entry(payload: bytes) -> Entry:
    node = struct.unpack_from("=Q", payload)[0]
    attr = ATTR.unpack_from(payload, 40)
    return Entry(node, attr[0], attr[1], attr[9], attr[11], attr[10], payload[_ENTRY_BYTES:])


class Room:
    """A folder over `source`, asked directly."""

    def __init__(
        self, source: Path, *, deletes: DeleteRule = "deny", open_files: int = 50, descriptors: int = 50
    ) -> None:
        self.source = source
        self.ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.source_fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
        self.clock = 0.0
        self.told = Told(self._theirs, lambda: self.clock)
        self.folder = Folder(
            self.source_fd,
            shown=Shown(UID, UID),
            uid=UID,
            gid=UID,
            names=JournaledNames(None),
            told=self.told,
            descriptors=descriptors,
            open_files=open_files,
        )
        self.ending: set[int] = set()
        self.asks = Asks(self.told, 60.0, lambda: self.clock, self.ending.__contains__)
        self.removals = Removals(self.folder, self.asks, deletes)
        self.unique = 0

    def ask(
        self, op: int, node: int = ROOT_NODE, words: tuple[int, ...] = (), *names: bytes, data: bytes = b""
    ) -> Answer:
        """What is answered; an `OSError` as its number."""
        self.unique += 1
        request = parse_request(memoryview(compose_request(op, node, words, *names, data=data, unique=self.unique)))
        try:
            if op in (Op.UNLINK, Op.RMDIR):
                return self.removals.remove(request)
            return _OPERATIONS[op](self.folder, request)
        except OSError as error:
            return number_of(error)

    def lookup(self, *path: bytes) -> Entry:
        entry = None
        for name in path:
            entry = self.entry(Op.LOOKUP, entry.node if entry else ROOT_NODE, (), name)
        assert entry is not None
        return entry

    def entry(self, op: int, node: int = ROOT_NODE, words: tuple[int, ...] = (), *names: bytes) -> Entry:
        answer = self.ask(op, node, words, *names)
        assert isinstance(answer, bytes), os.strerror(answer) if isinstance(answer, int) else answer
        return parse_entry(answer)

    def open(self, *path: bytes, flags: int = os.O_RDONLY) -> int:
        """A file handle."""
        return self.handle(self.ask(Op.OPEN, self.lookup(*path).node, (flags,)))

    def handle(self, answer: Answer) -> int:
        """The file handle in an answer, which may stand after an entry."""
        assert isinstance(answer, bytes), answer
        number: int = struct.unpack_from("=Q", answer, len(answer) - 16)[0]
        return number

    def create(self, name: bytes, content: bytes = b"") -> Entry:
        """A file that the session makes, closed again."""
        answer = self.ask(Op.CREATE, ROOT_NODE, (os.O_RDWR, 0o644), name)
        handle = self.handle(answer)
        if content:
            assert isinstance(self.ask(Op.WRITE, 1, (handle, 0, len(content)), data=content), bytes)
        assert self.ask(Op.RELEASE, 1, (handle,)) == b""
        assert isinstance(answer, bytes)
        return parse_entry(answer)

    def hear(self) -> list[FromFolder]:
        """All that was said up to now."""
        self.told.flush()
        heard: list[FromFolder] = []
        self.ours.setblocking(False)
        while True:
            try:
                data, ancillary, flags, _ = self.ours.recvmsg(*packet.RECEIVE_ARGUMENTS)
            except BlockingIOError:
                return heard
            heard.append(_decoder.decode(packet.unpack(data, ancillary, flags)[0]))

    def changes(self) -> list[tuple[Any, ...]]:
        """What was told of changes, as plain tuples: change, path, to, size."""
        return [(each.change, each.path, each.to, each.size) for each in _changes(self.hear())]

    def close(self) -> None:
        self.asks.close()
        self.folder.close()
        os.close(self.source_fd)
        self.ours.close()
        self._theirs.close()


def _changes(heard: list[FromFolder]) -> list[FolderChange]:
    return [each for said in heard if isinstance(said, Changed) for each in said.changes]


class Served:
    """A whole server in a thread, with sockets for /dev/fuse and its supervisor."""

    def __init__(self, source: Path, *, deletes: DeleteRule = "deny", read_only: bool = False) -> None:
        self.kernel, fuse = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.supervisor, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.kernel, self.supervisor):
            each.settimeout(60)
        source_fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
        self._owned = (fuse, control)
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)

        def run() -> None:
            try:
                serve(
                    fuse_fd=fuse.fileno(),
                    source_fd=source_fd,
                    control=control,
                    journal_fd=None,
                    uid=UID,
                    gid=UID,
                    deletes=deletes,
                    read_only=read_only,
                )
            finally:
                os.close(source_fd)

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def send(self, data: bytes) -> None:
        self.kernel.sendall(data)

    def answer(self) -> tuple[int, int, bytes]:
        """Of the next answer: unique, errno, payload."""
        data = self.kernel.recv(2 << 20)
        length, error, unique = struct.unpack_from("=IiQ", data)
        assert length == len(data)
        return unique, -error, data[16:]

    def ask(self, *arguments: Any, **named: Any) -> tuple[int, bytes]:
        """errno and payload."""
        self.send(compose_request(*arguments, **named))
        return self.answer()[1:]

    def tell(self, message: ToFolder) -> None:
        self.supervisor.sendall(msgspec.msgpack.encode(message))

    def hear(self, wanted: Callable[[FromFolder], bool]) -> FromFolder:
        """The next message that is wanted."""
        while True:
            said = _decoder.decode(self.supervisor.recv(1 << 20))
            if wanted(said):
                return said

    def close(self) -> None:
        """End it as a launcher does that goes away."""
        self.supervisor.close()
        self.thread.join(60)
        os.umask(self._umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
        gc.unfreeze()
        assert not self.thread.is_alive()
        for each in (self.kernel, *self._owned):
            each.close()
