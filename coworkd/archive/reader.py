"""A tar archive as it comes: bytes in, entries and their data out. Without I/O, and bounded whatever comes.

Rules
- ustar, pax and GNU's long names are read; sparse entries and multi-volume archives are refused.
- Of extended headers `path`, `linkpath`, `size` and `mtime` count. They are read whole, so they have a bound.
- A header with a wrong checksum, and an end without the two empty blocks that say so, are errors: what was cut short is not taken for
  whole. What comes behind the end is passed over.
- `next_event` after an error raises it again.

Sources: POSIX pax; tar(5) of libarchive and the GNU tar manual for base-256 numbers and the types L, K and S.
"""

from __future__ import annotations

from decimal import Decimal, DecimalException

from msgspec import Struct

from coworkd.archive.entry import BLOCK_BYTES, ArchiveError, Entry, EntryKind

EXTENDED_LIMIT_BYTES = 256 * 1024
"""The most of one extended header, or of all global ones."""
SIZE_LIMIT = 2**63 - 1
_NOTHING = bytes(BLOCK_BYTES)
_KINDS: dict[bytes, EntryKind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "symlink", b"3": "other", b"4": "other", b"5": "directory",
    b"6": "other",
}  # fmt: skip
_KEPT = frozenset([b"path", b"linkpath", b"size", b"mtime"])
_TIME_LIMIT_NS = 2**62


class Data(Struct, frozen=True, kw_only=True):
    """The next bytes of the file that was told last; `last` where nothing of it follows."""

    data: bytes
    last: bool


class ArchiveEnd(Struct, frozen=True, kw_only=True):
    """The archive said that it is over."""


Event = Entry | Data | ArchiveEnd


class Reader:
    """One archive. A file of no bytes has no `Data`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._left = 0
        """Bytes of the file that have not come yet."""
        self._padding = 0
        self._empty_blocks = 0
        self._defaults: dict[bytes, bytes] = {}
        self._extended: dict[bytes, bytes] = {}
        self._over = False
        self._error: ArchiveError | None = None

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes in, then call `next_event` until it gives None: nothing else bounds what is kept here."""
        if self._over:
            return
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def check_end(self) -> None:
        """Nothing more comes. Raises `ArchiveError` where that is too early."""
        if self._error is not None:
            raise self._error
        # One empty block is an end that was cut in the padding: what counts has come.
        if not self._over and not (self._empty_blocks and self._waiting == 0):
            raise ArchiveError("the archive is cut short: its end is missing")

    def next_event(self) -> Event | None:
        """The next entry, data or end; None when more has to come. Raises `ArchiveError`."""
        if self._error is not None:
            raise self._error
        try:
            return self._next_event()
        except ArchiveError as error:
            self._error = error
            raise

    @property
    def _waiting(self) -> int:
        return len(self._buffer) - self._position

    def _next_event(self) -> Event | None:
        while not self._over:
            if self._left:
                return self._take_data()
            if self._padding:
                skipped = min(self._padding, self._waiting)
                self._position += skipped
                self._padding -= skipped
                if self._padding:
                    return None
            event = self._take_header()
            if event is None and not self._progress:
                return None
            if event is not None:
                return event
        return None

    def _take_data(self) -> Data | None:
        count = min(self._left, self._waiting)
        if not count:
            return None
        data = bytes(memoryview(self._buffer)[self._position : self._position + count])
        self._position += count
        self._left -= count
        return Data(data=data, last=not self._left)

    _progress = False
    """Whether the last `_take_header` has taken one, also where it told nothing."""

    def _take_header(self) -> Event | None:
        self._progress = False
        if self._waiting < BLOCK_BYTES:
            return None
        block = bytes(memoryview(self._buffer)[self._position : self._position + BLOCK_BYTES])
        if block == _NOTHING:
            return self._take_empty_block()
        if self._empty_blocks:
            raise ArchiveError("an entry follows an empty block: the archive is damaged")
        _check_sum(block)
        kind = block[156:157]
        size = _number(block[124:136], "size")
        if kind in (b"x", b"g", b"L", b"K"):
            self._take_extended(kind, size)
            return None
        entry = self._entry(block, kind, size)
        self._position += BLOCK_BYTES
        self._progress = True
        self._extended = {}
        self._left = entry.size
        self._padding = -entry.size % BLOCK_BYTES
        return entry

    def _take_empty_block(self) -> Event | None:
        self._position += BLOCK_BYTES
        self._progress = True
        self._empty_blocks += 1
        if self._empty_blocks < 2:
            return None
        self._over = True
        self._buffer.clear()
        self._position = 0
        return ArchiveEnd()

    def _take_extended(self, kind: bytes, size: int) -> None:
        if size > EXTENDED_LIMIT_BYTES:
            raise ArchiveError(f"an extended header has {size} bytes, more than {EXTENDED_LIMIT_BYTES}")
        whole = BLOCK_BYTES + size + -size % BLOCK_BYTES
        if self._waiting < whole:
            return
        start = self._position + BLOCK_BYTES
        data = bytes(memoryview(self._buffer)[start : start + size])
        self._position += whole
        self._progress = True
        if kind == b"L":
            self._extended[b"path"] = data.partition(b"\0")[0]
        elif kind == b"K":
            self._extended[b"linkpath"] = data.partition(b"\0")[0]
        elif kind == b"x":
            self._extended.update(parse_records(data))
        else:
            self._defaults.update(parse_records(data))

    def _entry(self, block: bytes, kind: bytes, header_size: int) -> Entry:
        extended = {**self._defaults, **self._extended}
        path = extended.get(b"path", _path(block))
        found = _KINDS.get(kind)
        if found is None:
            raise ArchiveError(
                f"an entry is of the type {kind!r}, which is not taken: sparse, or of many volumes?", path
            )
        if found == "file" and kind != b"7" and path.endswith(b"/"):
            found = "directory"
        size = _decimal_size(extended[b"size"], path) if b"size" in extended else header_size
        if found == "hardlink" and size:
            raise ArchiveError("a hard link brings bytes of its own", path)
        mtime_ns = (
            _time_ns(extended[b"mtime"], path) if b"mtime" in extended else _number(block[136:148], "mtime") * 10**9
        )
        return Entry(
            path=path,
            kind=found,
            mode=_number(block[100:108], "mode") & 0o7777,
            size=size if found == "file" else 0,
            mtime_ns=max(-_TIME_LIMIT_NS, min(mtime_ns, _TIME_LIMIT_NS)),
            target=extended.get(b"linkpath", _text(block[157:257])),
        )


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """The records of an extended header that count, `LENGTH KEY=VALUE\\n` each. Raises `ArchiveError`."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = data[space + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if position + length > len(data) or not record.endswith(b"\n") or not equals:
            raise ArchiveError("an extended header cannot be read")
        if key.startswith(b"GNU.sparse."):
            raise ArchiveError("an entry is sparse: make the archive without --sparse")
        if key in _KEPT:
            records[key] = value[:-1]
        position += length
    return records


def _path(block: bytes) -> bytes:
    name = _text(block[0:100])
    # GNU's own magic has two spaces, and other things where ustar has the prefix.
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _check_sum(block: bytes) -> None:
    said = _number(block[148:156], "checksum")
    without = block[:148] + b" " * 8 + block[156:]
    if said == sum(without):
        return
    # Some of old have added signed bytes.
    if said != sum(without) - 256 * sum(byte > 127 for byte in without):
        raise ArchiveError("a header's checksum is wrong: this is no tar archive, or it is damaged or compressed")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str) -> int:
    """Octal digits, or base 256 where the first bit says so."""
    if field[0] & 0x80:
        value = int.from_bytes(
            field if field[0] == 0xFF else bytes((field[0] & 0x7F,)) + field[1:], "big", signed=field[0] == 0xFF
        )
    else:
        digits = field.partition(b"\0")[0].strip(b" ")
        if digits.strip(b"01234567"):
            raise ArchiveError(f"a header's {what} is no number")
        value = int(digits, 8) if digits else 0
    if what != "mtime" and not 0 <= value <= SIZE_LIMIT:
        raise ArchiveError(f"a header's {what} is {value}, which cannot be")
    return value


def _decimal_size(text: bytes, path: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > SIZE_LIMIT:
        raise ArchiveError("an extended header's size is no number", path)
    return int(text)


def _time_ns(text: bytes, path: bytes) -> int:
    try:
        seconds = Decimal(text.decode("ascii"))
        if not seconds.is_finite() or abs(seconds) > 10**12:
            raise ValueError
        return int(seconds.scaleb(9))
    except (UnicodeDecodeError, DecimalException, ValueError):
        raise ArchiveError("an extended header's mtime is no time", path) from None
