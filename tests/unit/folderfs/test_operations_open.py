import errno
import os
import struct
import time
from pathlib import Path

from coworkd.folderfs.fuse_words import ROOT_NODE, WRITE_CACHE, Op
from tests.unit.folderfs.folder_room import PID, Room


def read(room: Room, handle: int, offset: int = 0, size: int = 4096) -> bytes:
    answer = room.ask(Op.READ, 1, (handle, offset, size))
    assert not isinstance(answer, int)
    assert answer is not None
    return bytes(answer)


def write(room: Room, handle: int, offset: int, data: bytes, *, flags: int = 0, how: int = 0) -> int:
    answer = room.ask(Op.WRITE, 1, (handle, offset, len(data), how, 0, flags), data=data)
    assert isinstance(answer, bytes), answer
    count: int = struct.unpack_from("=I", answer)[0]
    return count


def test_reading_and_writing(room: Room) -> None:
    handle = room.open(b"letter", flags=os.O_RDWR)
    assert read(room, handle) == b"Dear all,\n"
    assert read(room, handle, 5, 3) == b"all"
    assert read(room, handle, 500) == b""
    assert write(room, handle, 5, b"you,\n") == 5
    assert room.ask(Op.FSYNC, 1, (handle, 1)) == b""
    assert room.ask(Op.FSYNC, 1, (handle, 0)) == b""
    assert room.ask(Op.RELEASE, 1, (handle,)) == b""
    assert (room.source / "letter").read_text() == "Dear you,\n"
    assert room.changes() == [("write", b"letter", b"", 10)]
    assert room.ask(Op.READ, 1, (handle, 0, 1)) == errno.EBADF


def test_a_write_shorter_than_it_says_is_refused(room: Room) -> None:
    handle = room.open(b"letter", flags=os.O_RDWR)
    assert room.ask(Op.WRITE, 1, (handle, 0, 10), data=b"short") == errno.EINVAL


def test_truncating_at_opening_is_told(room: Room) -> None:
    handle = room.open(b"letter", flags=os.O_WRONLY | os.O_TRUNC)
    room.ask(Op.RELEASE, 1, (handle,))
    assert room.changes() == [("truncate", b"letter", b"", 0), ("write", b"letter", b"", 0)]


def test_what_is_opened_to_be_read_is_truncated_too(room: Room) -> None:
    handle = room.open(b"letter", flags=os.O_RDONLY | os.O_TRUNC)
    assert read(room, handle) == b""
    assert (room.source / "letter").read_bytes() == b""


def test_only_what_appends_goes_to_the_end(room: Room) -> None:
    handle = room.open(b"letter", flags=os.O_RDWR | os.O_APPEND)
    with (room.source / "letter").open("a") as host:
        host.write("host\n")
    assert write(room, handle, 10, b"us\n", flags=os.O_RDWR | os.O_APPEND) == 3
    # Mapped pages are written through whatever is open, and the flag of what is open may change.
    assert write(room, handle, 0, b"Hear", flags=os.O_APPEND, how=WRITE_CACHE) == 4
    assert write(room, handle, 5, b"you", flags=os.O_RDWR) == 3
    assert write(room, handle, 0, b"end\n", flags=os.O_RDWR | os.O_APPEND) == 4
    assert (room.source / "letter").read_text() == "Hear you,\nhost\nus\nend\n"


def test_a_copy_goes_where_it_is_to_go(room: Room) -> None:
    source, target = room.open(b"letter"), room.open(b"kept", b"photo", flags=os.O_RDWR | os.O_APPEND)
    assert isinstance(room.ask(Op.COPY_FILE_RANGE, 1, (source, 0, 0, target, 0, 4, 0)), bytes)
    assert (room.source / "kept" / "photo").read_text() == "Dearo"


def test_what_took_its_place_is_not_opened(room: Room) -> None:
    node = room.lookup(b"letter").node
    os.unlink(room.source / "letter")
    os.mkfifo(room.source / "letter")
    assert room.ask(Op.OPEN, node, (os.O_RDONLY,)) == errno.ESTALE
    assert room.ask(Op.OPEN, node, (os.O_WRONLY,)) in (errno.ESTALE, errno.ENXIO)
    assert room.ask(Op.OPEN, room.lookup(b"letter").node, (os.O_RDONLY,)) == errno.ENXIO
    (room.source / "letter").unlink()
    assert room.ask(Op.OPEN, node, (os.O_RDONLY,)) == errno.ESTALE


def test_a_second_name_serves_when_the_first_is_gone(room: Room) -> None:
    os.link(room.source / "letter", room.source / "second")
    node = room.lookup(b"second").node
    assert room.lookup(b"letter").node == node
    (room.source / "letter").unlink()
    assert read(room, room.handle(room.ask(Op.OPEN, node, (os.O_RDONLY,)))) == b"Dear all,\n"


def opened_flags(room: Room) -> int:
    answer = room.ask(Op.OPEN, room.lookup(b"letter").node, (os.O_RDONLY,))
    assert isinstance(answer, bytes)
    flags: int = struct.unpack("=QII", answer)[1]
    return flags


def test_pages_are_kept_only_of_what_rested_unchanged(room: Room, source: Path) -> None:
    assert [opened_flags(room), opened_flags(room)] == [0, 0], "changed a moment ago"
    now = time.time_ns
    try:
        time.time_ns = lambda: now() + 10_000_000_000
        assert [opened_flags(room), opened_flags(room)] == [0, 2]
        (source / "letter").write_text("Dear you,\n")
        assert [opened_flags(room), opened_flags(room)] == [0, 2]
    finally:
        time.time_ns = now


def test_holes_copies_and_room(room: Room) -> None:
    source = room.open(b"letter")
    target = room.open(b"kept", b"photo", flags=os.O_RDWR)
    answer = room.ask(Op.COPY_FILE_RANGE, 1, (source, 0, 1, target, 0, 10))
    assert isinstance(answer, bytes)
    assert struct.unpack_from("=I", answer)[0] == 10
    assert (room.source / "kept" / "photo").read_text() == "Dear all,\n"
    assert room.ask(Op.FALLOCATE, 1, (target, 0, 100_000, 0)) == b""
    assert (room.source / "kept" / "photo").stat().st_size == 100_000
    assert room.ask(Op.FALLOCATE, 1, (target, 0, 4096, 8)) == errno.EOPNOTSUPP
    assert room.ask(Op.LSEEK, 1, (target, 0, os.SEEK_DATA)) == struct.pack("=Q", 0)
    assert room.ask(Op.LSEEK, 1, (target, 0, os.SEEK_SET)) == errno.EINVAL
    room.ask(Op.RELEASE, 1, (target,))
    assert room.changes() == [("write", b"kept/photo", b"", 100_000)]


def test_too_many_open_files_are_enfile(source: Path) -> None:
    room = Room(source, open_files=2)
    try:
        room.open(b"letter")
        room.open(b"letter")
        assert room.ask(Op.OPEN, room.lookup(b"letter").node, (0,)) == errno.ENFILE
        assert room.ask(Op.OPENDIR, ROOT_NODE) == errno.ENFILE
        assert room.ask(Op.CREATE, ROOT_NODE, (os.O_RDWR, 0o644), b"new") == errno.ENFILE
        assert not (source / "new").exists()
    finally:
        room.close()


def test_the_writer_is_who_wrote_last(room: Room) -> None:
    handle = room.open(b"letter", flags=os.O_RDWR)
    assert room.folder.handles.get(handle).pid == PID
