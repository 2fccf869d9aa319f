"""An entry as the bytes of a POSIX pax archive. Pure.

Rules: a plain ustar header where the entry fits one, with an extended header before it for what does not (long names, names beyond
ASCII, sizes from 8 GiB, fractions of a second). Names are bytes: one that is not UTF-8 is marked `hdrcharset=BINARY`, as pax(1) has it.
No owner is told. Behind a file's bytes come `padding(size)`, behind the last entry `END`.
"""

from __future__ import annotations

from coworkd.archive.entry import BLOCK_BYTES, Entry, EntryKind

END = bytes(2 * BLOCK_BYTES)
_NAME_BYTES = 100
_SIZE_LIMIT = 8**11
_TIME_LIMIT_S = 8**11
_TYPES: dict[EntryKind, bytes] = {"file": b"0", "hardlink": b"1", "symlink": b"2", "directory": b"5"}


def padding(size: int) -> bytes:
    """What follows the bytes of a file of that size."""
    return bytes(-size % BLOCK_BYTES)


def compose_entry(entry: Entry) -> bytes:
    """All headers of an entry. Raises `ValueError` for one of kind `other`, which has none."""
    if entry.kind not in _TYPES:
        raise ValueError(f"an entry of kind {entry.kind} has no place in an archive")
    path = entry.path + b"/" if entry.kind == "directory" and not entry.path.endswith(b"/") else entry.path
    seconds, fraction_ns = divmod(entry.mtime_ns, 10**9)
    fits_time = 0 <= seconds < _TIME_LIMIT_S
    records = b"".join(
        (
            _record(b"path", path) if not _fits(path) else b"",
            _record(b"linkpath", entry.target) if not _fits(entry.target) else b"",
            _record(b"size", b"%d" % entry.size) if entry.size >= _SIZE_LIMIT else b"",
            _record(b"mtime", _decimal_time(entry.mtime_ns)) if fraction_ns or not fits_time else b"",
        )
    )
    header = _header(
        path[:_NAME_BYTES],
        _TYPES[entry.kind],
        mode=entry.mode & 0o777,
        size=entry.size if entry.size < _SIZE_LIMIT else 0,
        seconds=seconds if fits_time else 0,
        target=entry.target[:_NAME_BYTES],
    )
    return _extended(records, path, entry.target) + header if records else header


def _fits(name: bytes) -> bool:
    return len(name) <= _NAME_BYTES and name.isascii()


def _extended(records: bytes, path: bytes, target: bytes) -> bytes:
    if not (_is_utf8(path) and _is_utf8(target)):
        records = _record(b"hdrcharset", b"BINARY") + records
    name = b"PaxHeaders/" + path.rstrip(b"/").rpartition(b"/")[2][: _NAME_BYTES - 11]
    return _header(name, b"x", mode=0o644, size=len(records), seconds=0, target=b"") + records + padding(len(records))


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d%s" % (length, rest)


def _decimal_time(mtime_ns: int) -> bytes:
    sign = b"-" if mtime_ns < 0 else b""
    seconds, fraction_ns = divmod(abs(mtime_ns), 10**9)
    return b"%s%d.%09d" % (sign, seconds, fraction_ns)


def _header(name: bytes, kind: bytes, *, mode: int, size: int, seconds: int, target: bytes) -> bytes:
    start = b"%s%07o\0%s%s%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, b"0000000\0", b"0000000\0", size, seconds)
    end = b"%s%s%s" % (kind, target.ljust(100, b"\0"), b"ustar\x0000" + bytes(64) + b"0000000\0" * 2)
    block = (start + b" " * 8 + end).ljust(BLOCK_BYTES, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
