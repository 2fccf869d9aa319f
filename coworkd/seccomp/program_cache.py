"""Compiled and checked programs on disk, one file each.

Layout of `KEY.seccomp` (KEY: 64 hex digits, `compile.cache_key`): 32 bytes SHA-256 of KEY and of all that follows, then MessagePack of
`Entry`. Written whole under another name and renamed, so a reader sees all of it or none.

Rules
- Only a checked program is stored. It is used again without the check if, and only if, nobody but root and ourselves could have written it
  (owner and mode of the directory and of the file, no symbolic link) and its hash is right: it must be the entry of this very key.
- Whatever is wrong with an entry, it is as if it were not there; the next `store_entry` replaces it.
- Bounded: at most `MAX_ENTRIES`, oldest out first.

Not done: locking. Two writers of one key write the same.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
from msgspec import Struct

from coworkd.model.errors import UNDECODABLE

MAX_ENTRIES = 64
MAX_ENTRY_BYTES = 128 * 1024
_SUFFIX = ".seccomp"
_HASH_BYTES = 32


class Entry(Struct, frozen=True, kw_only=True):
    """One program and who made it."""

    bpf: bytes
    compiler: str
    remark: str


def load_entry(directory: Path, key: str) -> Entry | None:
    """The entry of `key`, or None if there is none that can be trusted. Never raises for what is on the disk."""
    try:
        if not _ours_alone(os.stat(directory)):
            return None
        fd = os.open(directory / (key + _SUFFIX), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not _ours_alone(status) or status.st_size > MAX_ENTRY_BYTES:
            return None
        content = file.read(MAX_ENTRY_BYTES)
    if content[:_HASH_BYTES] != _digest(key, content[_HASH_BYTES:]):
        return None
    try:
        return msgspec.msgpack.decode(content[_HASH_BYTES:], type=Entry)
    except UNDECODABLE:
        return None


def store_entry(directory: Path, key: str, entry: Entry) -> None:
    """Keep `entry`. A directory that cannot be made or written is no error: the program is then made again next time."""
    content = msgspec.msgpack.encode(entry)
    with suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=directory, prefix=".new-", delete=False) as file:
            try:
                file.write(_digest(key, content) + content)
                file.flush()
                os.replace(file.name, directory / (key + _SUFFIX))
            except OSError:
                os.unlink(file.name)
                raise
        _drop_oldest(directory)


def _digest(key: str, content: bytes) -> bytes:
    return sha256(key.encode() + content).digest()


def _ours_alone(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _drop_oldest(directory: Path) -> None:
    entries = sorted(directory.glob("*" + _SUFFIX), key=lambda path: path.stat().st_mtime)
    for path in entries[:-MAX_ENTRIES]:
        path.unlink(missing_ok=True)
