"""The chain: each record is one line, and names the hash of the line before it.

Canonical bytes
    body  the record as compact JSON (UTF-8, no spaces, keys in the order written: `seq`, `at`, `boot`, `kind`, the
          fields in the order of `kinds.KINDS`, `prev` last), beginning with `{` and ending with `}`
    hash  SHA-256 over exactly the bytes of body, as 64 lower-case hex digits
    line  body without its closing `}`, then `,"hash":"`, hash, `"}` and one LF

Rules
- `seq` begins with 1 and grows by one; `prev` is the hash of the record with the `seq` before, `GENESIS` for the first.
- The chain knows nothing of files: the first record of a file continues the last record of the file before.
- A reader never re-encodes: it hashes the bytes it found, so any change of any byte is seen, equal JSON or not.

It does not do I/O, and it does not judge fields (`kinds` does). Whoever can write the directory can write a whole new
chain: keep `head` elsewhere to notice that, or to notice records cut from the end.

Sources: FIPS 180-4 (SHA-256), RFC 8259 (JSON), jsonlines.org.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from coworkd.model.errors import UNDECODABLE

FORMAT = 1
GENESIS = "0" * 64
LINE_LIMIT_BYTES = 1024 * 1024
"""A longer line is not ours. `kinds.admit` cuts what could make one."""

_SEAL = b',"hash":"'
_END = b'"}\n'
_SEALED_BYTES = len(_SEAL) + 64 + len(_END)


class Broken(Exception):
    """A line is not a whole, unchanged record; the text says in what way."""


class Head(Struct, frozen=True, kw_only=True):
    """Where the chain ends: the newest record's `seq` and hash."""

    seq: int = 0
    hash: str = GENESIS


class Sealed(Struct, frozen=True, kw_only=True):
    """What checking a chain needs of a record; the other keys are covered by the hash alone."""

    seq: int
    kind: str
    prev: str
    kept_seq: int = 0
    kept_hash: str = ""


_SEALED = msgspec.json.Decoder(Sealed)
_ANY = msgspec.json.Decoder(dict[str, Any])


def append_record(head: Head, kind: str, fields: Mapping[str, Any], *, at: float, boot: str) -> tuple[bytes, Head]:
    """Return the line of the next record, with its LF, and the head after it. `fields` come from `kinds.admit`."""
    seq = head.seq + 1
    record = {"seq": seq, "at": at, "boot": boot, "kind": kind, **fields, "prev": head.hash}
    body = msgspec.json.encode(record)
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + _SEAL + digest.encode() + _END, Head(seq=seq, hash=digest)


def check_line(line: bytes) -> tuple[Sealed, str]:
    """Return the record of `line` (with its LF) and its hash, or raise `Broken`. `prev` and `seq` are not judged."""
    if len(line) > LINE_LIMIT_BYTES:
        raise Broken(f"the line is longer than {LINE_LIMIT_BYTES} bytes")
    if not line.endswith(_END) or line[-_SEALED_BYTES : -_SEALED_BYTES + len(_SEAL)] != _SEAL:
        raise Broken("the line does not end with a hash")
    body = line[:-_SEALED_BYTES] + b"}"
    digest = hashlib.sha256(body).hexdigest()
    if digest.encode() != line[-_SEALED_BYTES + len(_SEAL) : -len(_END)]:
        raise Broken("the record was changed: its hash does not match")
    try:
        return _SEALED.decode(body), digest
    except UNDECODABLE as error:
        raise Broken(f"the line is not a record: {error}") from error


def parse_record(line: bytes) -> dict[str, Any]:
    """Return all keys of a record, `hash` included; raise `Broken` where the line is not JSON. Nothing is verified."""
    try:
        return _ANY.decode(line)
    except UNDECODABLE as error:
        raise Broken(f"the line is not a record: {error}") from error


class Tail(Struct, frozen=True, kw_only=True):
    """How the newest file ends.

    `keep_bytes` up to and with the last LF; `torn_bytes` behind it, never acknowledged to anyone. `head` is the last
    whole record's, None where there is none. `broken` says that complete lines at the end are not records: that is no
    torn write, so nothing is cut and it is told.
    """

    keep_bytes: int
    torn_bytes: int
    head: Head | None
    broken: str | None = None


def read_tail(data: bytes) -> Tail:
    """Judge the whole content of one file, from its end."""
    keep = data.rfind(b"\n") + 1
    broken: str | None = None
    end = keep
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        try:
            record, digest = check_line(data[start:end])
        except Broken as error:
            broken = broken or str(error)
            end = start
            continue
        head = Head(seq=record.seq, hash=digest)
        return Tail(keep_bytes=keep, torn_bytes=len(data) - keep, head=head, broken=broken)
    return Tail(keep_bytes=keep, torn_bytes=len(data) - keep, head=None, broken=broken)
