"""Verify: does what lies in the files prove itself?

Found, and named by file and line: a record changed, removed, inserted, put elsewhere, cut in the middle; a file that
is missing, renamed, or one too many; a beginning that no `audit.dropped` record explains; a last line without its LF.
Reading stops at the first problem, since nothing behind it can be trusted.

Not found by this alone: records cut from the very end, and a whole new chain written by someone who may write the
directory. Compare `Verdict.head` with one kept elsewhere.

Pure and streaming: chunks of any size in, at most one line held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from coworkd.auditlog.chain import GENESIS, LINE_LIMIT_BYTES, Broken, Head, Sealed, check_line
from coworkd.auditlog.rotation import parse_name


class Verdict(Struct, frozen=True, kw_only=True):
    """What was proven. `first` and `last` are 0 in an empty log; `problem` is None when all is well."""

    records: int
    first: int
    last: int
    head: str
    problem: str | None = None


def verify(files: Iterable[tuple[str, Iterable[bytes]]]) -> Verdict:
    """Check a whole log: `files` are names (oldest first) with their content in chunks of any size."""
    checker = _Checker()
    try:
        for name, chunks in files:
            checker.begin_file(name)
            for line in _lines(chunks):
                checker.check(line)
        checker.finish()
    except Broken as error:
        return checker.verdict(f"{checker.place}: {error}")
    return checker.verdict(None)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines with their LF; a rest without LF comes last, as it is."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"
        if len(rest) > LINE_LIMIT_BYTES:
            break
    if rest:
        yield rest


class _Checker:
    """The state between lines."""

    def __init__(self) -> None:
        self._head = Head()
        self._first = 0
        self._first_prev = GENESIS
        self._records = 0
        self._file = ""
        self._line = 0
        self._firsts: dict[int, str] = {}
        self._dropped: Sealed | None = None

    @property
    def place(self) -> str:
        return f"{self._file} line {self._line}"

    def begin_file(self, name: str) -> None:
        if self._file and not self._line:
            raise Broken("the file is empty, but it is not the newest")
        self._file = name
        self._line = 0

    def check(self, line: bytes) -> None:
        self._line += 1
        if not line.endswith(b"\n"):
            raise Broken("the line is cut: it has no line end")
        record, digest = check_line(line)
        if self._line == 1:
            if parse_name(self._file) != record.seq:
                raise Broken(f"the file begins with record {record.seq}, which its name does not say")
            self._firsts[record.seq] = digest
        if self._records == 0:
            self._first, self._first_prev = record.seq, record.prev
        elif record.seq != self._head.seq + 1:
            raise Broken(f"record {self._head.seq + 1} is not here: record {record.seq} follows {self._head.seq}")
        elif record.prev != self._head.hash:
            raise Broken(f"record {record.seq} does not continue the record before it")
        if record.kept_seq:
            self._check_dropped(record)
        self._records += 1
        self._head = Head(seq=record.seq, hash=digest)

    def _check_dropped(self, record: Sealed) -> None:
        self._dropped = record
        if record.kept_seq < self._first:
            return
        if self._firsts.get(record.kept_seq) != record.kept_hash:
            raise Broken(f"the first record kept, {record.kept_seq}, is not the one this record names")

    def finish(self) -> None:
        if self._file and not self._line and parse_name(self._file) != self._head.seq + 1:
            raise Broken(f"the file is empty, and its name does not continue record {self._head.seq}")
        if self._first <= 1:
            if self._first_prev != GENESIS:
                self._line = 1
                raise Broken("the first record does not begin a chain")
            return
        if self._dropped is None or self._dropped.kept_seq < self._first:
            raise Broken(f"records 1 to {self._first - 1} are gone, and no record says that they were dropped")

    def verdict(self, problem: str | None) -> Verdict:
        return Verdict(
            records=self._records,
            first=self._first,
            last=self._head.seq,
            head=self._head.hash,
            problem=problem,
        )
