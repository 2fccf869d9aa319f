"""A program: the same calls, at random, in two directories, one of them a guarded folder. It prints where they differ, and ends with 1.

    python3 folder_random.py PLAIN FOLDER SEED STEPS

It runs as the session's user, by the machine's own Python, with nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

NAMES = (b"a", b"b", b"c", b"D", b"E", b"F", "ü".encode(), b"n\nl", b"\xff\xfe")
DIRECTORIES = (b"", b"D", b"E", b"D/F", b"E/D", b"D/F/E")
MODES = (0o644, 0o600, 0o444, 0o200, 0o000, 0o755)
OFFSETS = (0, 1, 100, 4095, 4096, 10_000, 65_536, (1 << 20) + 5)
LENGTHS = (0, 1, 7, 100, 4096, 5000, 70_000, 300_000)
OPEN_FILES = 12
libc = ctypes.CDLL(None, use_errno=True)


class File(NamedTuple):
    """Opened in both; the name it had."""

    fds: tuple[int, int]
    name: bytes
    is_directory: bool


class Pair:
    """The two directories, and what is open in both."""

    def __init__(self, roots: tuple[bytes, bytes], seed: int) -> None:
        self.roots = roots
        self.random = random.Random(seed)
        self.files: list[File] = []
        self.differences = 0

    def do(self, name: str, call: Callable[[int], Any]) -> Any:
        """Call it for both, compare, and give what both gave; None where that was an error, or differs."""
        first, second = (self._try(call, which) for which in (0, 1))
        if first != second:
            self.differences += 1
            print(f"{name}\n    plain  {str(first)[:100]}\n    folder {str(second)[:100]}", flush=True)
            return None
        return first

    def _try(self, call: Callable[[int], Any], which: int) -> Any:
        try:
            return call(which)
        except OSError as error:
            return "error", errno.errorcode.get(error.errno or 0)

    def at(self, which: int, path: bytes) -> bytes:
        return os.path.join(self.roots[which], path)

    def path(self) -> bytes:
        return os.path.join(self.random.choice(DIRECTORIES), self.random.choice(NAMES))

    def data(self) -> bytes:
        return bytes([self.random.randrange(256)]) * self.random.choice(LENGTHS)

    def offset(self) -> int:
        return self.random.choice(OFFSETS)

    def file(self) -> File | None:
        files = [file for file in self.files if not file.is_directory]
        return self.random.choice(files) if files else None

    def close(self, file: File) -> None:
        self.files.remove(file)
        for fd in file.fds:
            os.close(fd)


# -- by name ------------------------------------------------------------------------------------------------------


def open_(pair: Pair) -> None:
    path, mode = pair.path(), pair.random.choice(MODES)
    flags = pair.random.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR)) | os.O_NONBLOCK
    for flag, chance in (
        (os.O_CREAT, 0.7),
        (os.O_EXCL, 0.15),
        (os.O_TRUNC, 0.2),
        (os.O_APPEND, 0.2),
        (os.O_SYNC, 0.05),
    ):
        flags |= flag if pair.random.random() < chance else 0
    fds: list[int] = []

    def call(which: int) -> str:
        fds.append(os.open(pair.at(which, path), flags, mode))
        return "open"

    opened = pair.do(f"open {path!r} {flags:o} {mode:o}", call)
    if opened != "open":
        for fd in fds:
            os.close(fd)
        return
    is_directory = stat.S_ISDIR(os.fstat(fds[0]).st_mode)
    pair.files.append(File((fds[0], fds[1]), path, is_directory))
    if len(pair.files) > OPEN_FILES:
        pair.close(pair.random.choice(pair.files))


def make(pair: Pair) -> None:
    path, kind = pair.path(), pair.random.randrange(4)
    if kind < 2:
        pair.do(f"mkdir {path!r}", lambda which: os.mkdir(pair.at(which, path), 0o755))
    elif kind == 2:
        pair.do(f"symlink {path!r}", lambda which: os.symlink(b"../a", pair.at(which, path)))
    else:
        mode = pair.random.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG)) | 0o644
        pair.do(f"mknod {path!r} {mode:o}", lambda which: os.mknod(pair.at(which, path), mode))


def remove(pair: Pair) -> None:
    path, call = pair.path(), pair.random.choice((os.unlink, os.unlink, os.rmdir))
    pair.do(f"{call.__name__} {path!r}", lambda which: call(pair.at(which, path)))


def rename(pair: Pair) -> None:
    source, target, flags = pair.path(), pair.path(), pair.random.choice((0, 0, 1, 2))

    def call(which: int) -> None:
        if libc.renameat2(-100, pair.at(which, source), -100, pair.at(which, target), flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    pair.do(f"rename {source!r} {target!r} {flags}", call)


def link(pair: Pair) -> None:
    source, target, file = pair.path(), pair.path(), pair.file()
    if file is None or pair.random.random() < 0.7:
        pair.do(
            f"link {source!r} {target!r}",
            lambda which: os.link(pair.at(which, source), pair.at(which, target), follow_symlinks=False),
        )
        return
    pair.do(
        f"link of open {file.name!r} {target!r}",
        lambda which: os.link(b"/proc/self/fd/%d" % file.fds[which], pair.at(which, target), follow_symlinks=True),
    )


def look(pair: Pair) -> None:
    path, directory = pair.path(), pair.random.choice(DIRECTORIES)
    pair.do(f"lstat {path!r}", lambda which: facts(os.lstat(pair.at(which, path))))
    pair.do(f"readlink {path!r}", lambda which: os.readlink(pair.at(which, path)))
    pair.do(f"list {directory!r}", lambda which: sorted(os.listdir(pair.at(which, directory))))
    pair.do(f"attributes {path!r}", lambda which: attributes(pair.at(which, path)))


def change(pair: Pair) -> None:
    path, kind = pair.path(), pair.random.randrange(4)
    mode, size, value = pair.random.choice(MODES) | 0o300, pair.offset(), pair.data()[:3000]
    times = pair.random.randrange(10**18), pair.random.randrange(10**18)
    if kind == 0:
        pair.do(f"chmod {path!r} {mode:o}", lambda which: os.chmod(pair.at(which, path), mode))
    elif kind == 1:
        pair.do(f"truncate {path!r} {size}", lambda which: os.truncate(pair.at(which, path), size))
    elif kind == 2:
        pair.do(f"setxattr {path!r}", lambda which: os.setxattr(pair.at(which, path), b"user.x", value))
    else:

        def call(which: int) -> tuple[int, int]:
            os.utime(pair.at(which, path), ns=times, follow_symlinks=False)
            found = os.lstat(pair.at(which, path))
            return found.st_atime_ns, found.st_mtime_ns

        pair.do(f"utime {path!r}", call)


# -- what is open -------------------------------------------------------------------------------------------------


def read(pair: Pair, file: File) -> None:
    offset, length = pair.offset(), pair.random.choice(LENGTHS)
    pair.do(f"pread {file} {length} {offset}", lambda which: os.pread(file.fds[which], length, offset))
    pair.do(f"read {file} {length}", lambda which: os.read(file.fds[which], length))


def write(pair: Pair, file: File) -> None:
    offset, data = pair.offset(), pair.data()
    if pair.random.random() < 0.5:
        pair.do(f"write {file} {len(data)}", lambda which: os.write(file.fds[which], data))
    else:
        pair.do(f"pwrite {file} {len(data)} {offset}", lambda which: os.pwrite(file.fds[which], data, offset))


def resize(pair: Pair, file: File) -> None:
    offset, length, mode = pair.offset(), pair.random.choice(LENGTHS), pair.random.choice((0, 1, 3, 0x10, 0x11))

    def call(which: int) -> None:
        if libc.fallocate(file.fds[which], mode, ctypes.c_long(offset), ctypes.c_long(length)):
            raise OSError(ctypes.get_errno(), "fallocate")

    pair.do(f"fallocate {file} {mode} {offset} {length}", call)
    pair.do(f"ftruncate {file} {offset}", lambda which: os.ftruncate(file.fds[which], offset))


def move(pair: Pair, file: File) -> None:
    offset, whence = pair.offset(), pair.random.choice((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END))
    pair.do(f"lseek {file} {offset} {whence}", lambda which: os.lseek(file.fds[which], offset, whence))
    pair.do(f"fstat {file}", lambda which: facts(os.fstat(file.fds[which])))


def copy(pair: Pair, file: File) -> None:
    other, start, end, length = pair.file(), pair.offset(), pair.offset(), pair.random.choice(LENGTHS)
    if other is None or (os.fstat(file.fds[0]).st_ino == os.fstat(other.fds[0]).st_ino and abs(start - end) < length):
        return
    pair.do(
        f"copy {file} {start} {other} {end} {length}",
        lambda which: os.copy_file_range(file.fds[which], other.fds[which], length, start, end),
    )


def map_(pair: Pair, file: File) -> None:
    offset, data, flush = pair.random.choice((0, 4090, 9000)), pair.data()[:10], pair.random.random() < 0.5

    def call(which: int) -> bytes | None:
        size = os.fstat(file.fds[which]).st_size
        if size < offset + 10 or size > 1 << 22:
            return None
        with mmap.mmap(file.fds[which], size) as mapped:
            mapped[offset : offset + len(data)] = data
            if flush:
                mapped.flush()
            return bytes(mapped[:200])

    pair.do(f"mmap {file} {offset}", call)


def flags(pair: Pair, file: File) -> None:
    wanted = pair.random.choice((0, os.O_APPEND)) | os.O_NONBLOCK
    pair.do(f"fcntl {file} {wanted:o}", lambda which: fcntl.fcntl(file.fds[which], fcntl.F_SETFL, wanted))
    pair.do(f"fsync {file}", lambda which: os.fsync(file.fds[which]))


def facts(found: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(found.st_mode):
        return (found.st_mode,)
    return found.st_mode, found.st_size, found.st_nlink


def attributes(path: bytes) -> dict[str, bytes]:
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user."))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def tree(top: bytes) -> dict[bytes, Any]:
    """All there is, as far as it can be seen."""
    found: dict[bytes, Any] = {}
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            facts_ = facts(os.lstat(path))
            content: bytes | None = None
            with contextlib.suppress(PermissionError):
                if stat.S_ISREG(facts_[0]):
                    with open(path, "rb") as file:
                        content = file.read()
            found[os.path.relpath(path, top)] = facts_, content
    return found


BY_NAME = (open_, open_, open_, make, remove, remove, rename, rename, link, look, change)
OPENED = (read, read, write, write, resize, move, copy, map_, flags)


def main() -> None:
    plain, folder, seed, steps = sys.argv[1:]
    pair = Pair((os.fsencode(plain), os.fsencode(folder)), int(seed))
    os.umask(0o022)
    for directory in DIRECTORIES[1:]:
        for which in (0, 1):
            os.mkdir(pair.at(which, directory))
    for _ in range(int(steps)):
        file = pair.file()
        if file is None or pair.random.random() < 0.5:
            pair.random.choice(BY_NAME)(pair)
        else:
            pair.random.choice(OPENED)(pair, file)
    for each in list(pair.files):
        pair.close(each)
    pair.do("what is left", lambda which: tree(pair.roots[which]))
    sys.exit(pair.differences > 0)


if __name__ == "__main__":
    main()
