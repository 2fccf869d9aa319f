"""What one request inside an inspected connection must be, before a byte of it goes on.

Rules, beside all those of `http_head`
- The target is a path (or `*` for OPTIONS, or the whole https URL of the connection's own host), and Host names the host and port the
  connection was granted for: one that names another would have the server answer for a host that nobody decided on (421).
- With approved credentials given, at least one stands in it, and no other: `Authorization: Bearer WORDS` or `X-Api-Key: WORDS`, in any
  spelling that a server may take for one of the two (`_` for `-`). A second, unapproved one might be the one the server looks at.
  Connection names neither: what it names goes no further, and the request would go on without.
- An Upgrade is taken to `websocket` only: behind h2c there would be requests that nobody looks at.

Cookies, bodies and queries are not looked at. No error holds a byte of the client's.

Sources: RFC 9110 sections 7.2, 7.4, 7.8 and 11.6.2, RFC 6750 section 2.1.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from coworkd.proxy.http_head import HeadError, RequestHead, list_options, parse_request

_HEAD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) (HTTP/1\.[01])(\r\n.*)", re.DOTALL)
_HOST: Final = re.compile(rb"\r\n[Hh][Oo][Ss][Tt]:[\t ]*([^\r]*?)[\t ]*(?=\r\n)")
_HTTPS: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]://([^/?#]*)([^#]*)")
_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+)")
_PATH_CHARS: Final = 256
MISDIRECTED: Final = 421
UNAUTHORIZED: Final = 401

_NO_CREDENTIAL: Final = (
    "this host takes requests with an approved credential only (Authorization: Bearer, X-Api-Key); this has none"
)
_DROPPED_CREDENTIAL: Final = (
    "Connection names the field of a credential, which would not go on: leave it out of Connection"
)
_CREDENTIALS: Final = frozenset((b"authorization", b"x-api-key"))
_OTHER_CREDENTIAL: Final = "this host takes requests with approved credentials only, and this one holds another"


def parse_inspected(raw: bytes, host: str, port: int) -> RequestHead:
    """Parse a whole head of a connection to `host` (canonical, no brackets) and `port`. Raises `HeadError`."""
    match = _HEAD.fullmatch(raw)
    if match is None:
        return parse_request(raw)  # which says what is wrong with it
    method, target, version, fields = match.groups()
    authority = f"[{host}]" if ":" in host else host
    path = _path(method, target, authority, port)
    hosts = _HOST.findall(fields)
    if len(hosts) == 1 and not _names(hosts[0], authority, port):
        raise HeadError(MISDIRECTED, "the Host field names another host or port than the connection was made to")
    head = parse_request(b"%b http://%b:%d%b %b%b" % (method, authority.encode("ascii"), port, path, version, fields))
    kept = tuple(field for field in head.fields if field[0].lower() != b"upgrade" or field[1].lower() == b"websocket")
    return msgspec.structs.replace(head, fields=kept)


def judge_credentials(fields: Iterable[tuple[bytes, bytes]], approved: Sequence[str]) -> str | None:
    """None where the request may go on, else a sentence. `approved` are SHA-256 sums, lower-case hex."""
    found = False
    for name, value in fields:
        kind = name.lower().replace(b"_", b"-")
        if kind == b"connection":
            if not _CREDENTIALS.isdisjoint(option.replace(b"_", b"-") for option in list_options([value])):
                return _DROPPED_CREDENTIAL
            continue
        if kind == b"authorization":
            match = _BEARER.fullmatch(value)
            words = match.group(1) if match else None
        elif kind == b"x-api-key":
            words = value
        else:
            continue
        if words is None or not _is_approved(words, approved):
            return _OTHER_CREDENTIAL
        found = True
    return None if found else _NO_CREDENTIAL


def shown_path(head: RequestHead) -> str:
    """The path for the log: without its query, at most 256 characters."""
    path = head.path.partition(b"?")[0].decode("ascii")
    return path if len(path) <= _PATH_CHARS else f"{path[: _PATH_CHARS - 1]}…"


def _is_approved(words: bytes, approved: Sequence[str]) -> bool:
    """Compared with every sum, each in constant time: how long it takes says nothing of how near a guess was."""
    digest = hashlib.sha256(words).hexdigest()
    return sum(hmac.compare_digest(digest, each) for each in approved) > 0


def _path(method: bytes, target: bytes, authority: str, port: int) -> bytes:
    """What stands behind the authority of the URL that `parse_request` is given."""
    if target.startswith(b"/"):
        return target
    if target == b"*" and method == b"OPTIONS":
        return b""
    match = _HTTPS.fullmatch(target)
    if match is None:
        raise HeadError(400, "inside the connection a request asks for a path, as a server is asked")
    if not _names(match.group(1), authority, port):
        raise HeadError(MISDIRECTED, "the URL names another host or port than the connection was made to")
    return match.group(2)


def _names(value: bytes, authority: str, port: int) -> bool:
    name = value.lower()
    known = authority.encode("ascii")
    return name in (known, b"%b:%d" % (known, port), known + b".", b"%b.:%d" % (known, port))
