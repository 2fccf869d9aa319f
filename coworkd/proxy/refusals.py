"""The one table of how a refusal is answered, in HTTP and in SOCKS.

HTTP answers are complete responses that end the connection: the sentence stands in the body, and `X-Proxy-Error` names the kind for
programs. The two `blocked-by-…` marks and the first line of an allowlist's refusal are sandbox-runtime's, which tools look for.

Sources: RFC 9110 section 15 (status codes), RFC 6585 (429, 431), RFC 1928 section 6 (replies), the SOCKS4 memo
(reply 91: rejected).
"""

from __future__ import annotations

import re
from typing import Final, Literal

from coworkd.proxy.events import Refusal, RefusalKind

SOCKS4_REJECTED: Final = b"\x00\x5b\x00\x00\x00\x00\x00\x00"
ALLOWLIST_LINE: Final = "Connection blocked by network allowlist"

_HTTP: Final[dict[RefusalKind, tuple[int, str]]] = {
    "allowlist": (403, "blocked-by-allowlist"),
    "address": (403, "blocked-by-sandbox-runtime"),
    "dns": (502, "name-not-resolved"),
    "connect": (502, "connect-failed"),
    "timeout": (504, "timed-out"),
    "limit": (429, "too-many-connections"),
    "unavailable": (503, "unavailable"),
}

_SOCKS: Final[dict[RefusalKind, int]] = {
    "allowlist": 0x02,
    "address": 0x02,
    "dns": 0x04,
    "connect": 0x05,
    "timeout": 0x06,
    "limit": 0x01,
    "unavailable": 0x01,
}

_PHRASES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    408: "Request Timeout",
    421: "Misdirected Request",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

_PHRASE_CHARS: Final = 200
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")


def compose_http_refusal(refusal: Refusal, *, body: bool = True) -> bytes:
    """The response to a CONNECT or a forwarded request; without `body`, as a HEAD is answered: the head alone."""
    status, mark = _HTTP[refusal.kind]
    lines = [ALLOWLIST_LINE] if refusal.kind == "allowlist" else []
    lines += [line for line in (refusal.denied_reason, refusal.reason) if line and line not in lines]
    extra = "Retry-After: 1\r\n" if refusal.kind == "limit" else ""
    return _compose(status, mark, "\n".join(lines), phrase=refusal.denied_reason, extra=extra, body=body)


def compose_http_misuse(status: int, reason: str, *, body: bool = True) -> bytes:
    """The response to a request that breaks the rules."""
    return _compose(status, "bad-request", reason, body=body)


def compose_inspection_refusal(status: Literal[401, 421], reason: str, *, body: bool = True) -> bytes:
    """The response to a request inside an inspected connection that may not go on: without an approved credential, or to another host."""
    extra = "WWW-Authenticate: Bearer\r\n" if status == 401 else ""
    return _compose(status, "blocked-by-inspection", reason, extra=extra, body=body)


def compose_socks_refusal(refusal: Refusal) -> bytes:
    """The SOCKS5 reply to a request."""
    return compose_socks_reply(_SOCKS[refusal.kind])


def compose_socks_reply(code: int) -> bytes:
    """A SOCKS5 reply. The bound address is 0.0.0.0:0: ours is nobody's business, and no client of CONNECT needs it."""
    return b"\x05%c\x00\x01\x00\x00\x00\x00\x00\x00" % code


def _compose(status: int, mark: str, text: str, *, phrase: str = "", extra: str = "", body: bool) -> bytes:
    content = f"{text}\n".encode()
    told = _UNPRINTABLE.sub(" ", phrase)[:_PHRASE_CHARS].strip() or _PHRASES[status]
    head = (
        f"HTTP/1.1 {status} {told}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\n"
        f"X-Proxy-Error: {mark}\r\n"
        f"{extra}"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (content if body else b"")
