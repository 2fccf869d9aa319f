"""The HTTP of the health port: bytes of one request → the path it asks for, and an answer → bytes. Pure.

Rules
- GET of a plain path, HTTP/1.0 or 1.1, no body, at most `HEAD_BYTES` of head; all else is an answer of its own, and ends the connection.
  The grammar of a head is `proxy.http_head`'s: one that is read in two ways anywhere is refused here as there.
- One request a connection: each answer says so and is followed by the end.
- No byte of what was asked stands in an answer.

Sources: RFC 9112 sections 3 and 6, RFC 9110 sections 9.3.1 and 15.5.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from coworkd.proxy.http_head import HeadBuffer, HeadError, parse_request

HEAD_BYTES: Final = 4096
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
_PATH: Final = re.compile(r"/[A-Za-z0-9._-]*\Z")
_ORIGIN_FORM: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[\x21-\x7e]*) (HTTP/1\.[01])(\r\n.*)", re.DOTALL)
_HOST: Final = re.compile(rb"\r\n[Hh][Oo][Ss][Tt]:[\t ]*([^\r]*?)[\t ]*(?=\r\n)")
_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Answer(Struct, frozen=True, kw_only=True):
    """What is sent back; `body` is whole."""

    status: int
    kind: str
    body: bytes


class RequestReader:
    """The bytes of one connection, until they are a request or cannot become one."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = HeadBuffer(HEAD_BYTES)

    def feed(self, data: bytes) -> str | Answer | None:
        """The path that is asked for, a refusal, or None while the head is not whole."""
        self._buffer.feed(data)
        try:
            head = self._buffer.take_head()
            return None if head is None else _path(head)
        except HeadError as error:
            return refuse(error.status if error.status in _PHRASES else 400, error.reason)


def refuse(status: int, reason: str) -> Answer:
    """An answer for people: one line."""
    return Answer(status=status, kind=TEXT, body=f"{reason}\n".encode())


def compose(answer: Answer) -> bytes:
    """The answer on the wire."""
    allow = "Allow: GET\r\n" if answer.status == 405 else ""
    head = (
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}\r\nContent-Type: {answer.kind}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + answer.body


def _path(head: bytes) -> str | Answer:
    match = _ORIGIN_FORM.fullmatch(head)
    if match is None:
        return refuse(400, "ask for a path: GET /live HTTP/1.1")
    method, target, version, fields = match.groups()
    # Who we are does not matter, so any one well-formed Host will do; the proxy's rules want it to be the target's.
    host = next(iter(_HOST.findall(fields)), b"health")
    request = parse_request(b"%b http://%b%b %b%b" % (method, host, target, version, fields))
    if method != b"GET":
        return refuse(405, "only GET is answered here")
    for name, value in request.fields:
        if name.lower() in (b"content-length", b"transfer-encoding") and value != b"0":
            return refuse(400, "a GET has no body")
    path = target.decode("ascii")
    return path if _PATH.match(path) else refuse(404, "there are /live, /ready and /metrics")
