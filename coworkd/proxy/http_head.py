"""The heads of requests to a proxy: bytes → `RequestHead`, or a `HeadError` that says what is wrong with them.

h11 is lenient where a proxy must not be: it takes bare LF, folded lines, Content-Length beside Transfer-Encoding, any HTTP version,
control characters, a Host that is not the target. So each head is matched here, whole, against the grammar of RFC 9112, with nothing
left over; h11 sees what passed, and only for requests that are forwarded (it costs several times as much as all of this).

Rules
- Lines end in CRLF; empty ones before a request are skipped. HTTP/1.0 or HTTP/1.1. A head has at most `limit` bytes, its last CRLF
  counted, and `FIELDS_LIMIT` fields: thousands of empty ones would cost as much as a hundred requests.
- CONNECT has the form HOST:PORT, every other method http://HOST[:PORT][/PATH][?QUERY]; IPv6 in brackets, no userinfo, no fragment,
  ports 1 to 65535 without leading zeros.
- Exactly one Host with HTTP/1.1, at most one with 1.0, and it names the target; its port may be missing.
- A body is framed by one Content-Length (no leading zero, which some read as octal) or by exactly `Transfer-Encoding: chunked`, never by
  both, never twice. A CONNECT has none.
- No TRACE: a parent proxy that is asked for one (Max-Forwards: 0) answers with the credentials we gave it.
- Connection names no field that says where a request goes or how long it is.
- What is wrong first is told first, so any cutting of the same bytes gives the same error.

Not here: whether the host may be reached, what it canonically is.
Sources: RFC 9112 sections 2.2, 3, 5, 6; RFC 9110 sections 5, 7.6.1, 9.3.6, 9.3.8; RFC 3986 section 3.2.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

FIELDS_LIMIT: Final = 256

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# A field's value is one class up to CRLF, blanks included: with a part for the blanks of its own, a long run of them that ends badly
# would be tried in every cutting.
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)\r\n")
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])\r\n")
_HEAD: Final = re.compile(
    rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)

_HOST: Final = rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._~!$&'()*+,;=%-]{1,255}))"
_AUTHORITY: Final = re.compile(_HOST + rb"(?::([1-9][0-9]{0,4}))?")
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp]://([^/?#]*)([^#]*)")
_SCHEME: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_TOKEN_START: Final = frozenset(b"!#$%&'*+.^_`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_FRAMING: Final = frozenset((b"host", b"content-length", b"transfer-encoding"))


class HeadError(Exception):
    """A request that is not taken: `status` is what it is answered with, `reason` a sentence without a byte of the client's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class RequestHead(Struct, frozen=True, kw_only=True):
    """A head that keeps every rule."""

    raw: bytes
    method: bytes
    host: str
    """As written, without brackets."""
    port: int
    path: bytes
    """Path and query as they go to a server; empty for CONNECT."""
    fields: tuple[tuple[bytes, bytes], ...]
    """Names as written, values without the blanks around them."""
    connection: frozenset[bytes]
    """The options of Connection, in lower case."""
    minor: int
    """Of HTTP/1.0 or HTTP/1.1."""

    @property
    def connect(self) -> bool:
        return self.method == b"CONNECT"


class HeadBuffer:
    """The bytes of a client up to the end of its next head, and what came behind; one after another."""

    __slots__ = ("_buffer", "_judged", "_limit", "_searched")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._judged = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def peek(self) -> bytes:
        return bytes(self._buffer)

    def take_all(self) -> bytes:
        """Everything that is kept; nothing is afterwards."""
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken

    def take_head(self) -> bytes | None:
        """The next head with its last CRLF, or None while it is not all there. Raises `HeadError` once it cannot become one."""
        buffer = self._buffer
        while not self._searched and buffer.startswith(b"\r\n"):
            del buffer[:2]
        if not buffer or buffer == b"\r":
            return None
        if buffer[0] not in _TOKEN_START:
            raise HeadError(400, _not_http(buffer[0]))
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3), self._limit)
        if end >= 0:
            head = bytes(buffer[: end + 4])
            del buffer[: end + 4]
            self._searched = self._judged = 0
            return head
        self._searched = len(buffer)
        self._judge_lines()
        if len(buffer) >= self._limit:
            raise HeadError(431, f"the head of the request has more than {self._limit} bytes")
        return None

    def _judge_lines(self) -> None:
        """A head that is refused for a line is refused at that line: nobody waits for an end that may never come."""
        end = self._buffer.rfind(b"\n", self._judged, self._limit) + 1
        if end:
            fault = _find_fault(bytes(self._buffer[self._judged : end]), first=self._judged == 0)
            if fault is not None:
                raise fault
            self._judged = end


def parse_request(head: bytes) -> RequestHead:
    """Parse a whole head. Raises `HeadError`."""
    match = _HEAD.fullmatch(head)
    if match is None:
        raise _find_fault(head, first=True) or HeadError(400, "the head of the request is malformed")
    method, target, minor, block = match.groups()
    if method == b"CONNECT":
        host, port, path = (
            *_authority(target, None, "a CONNECT names HOST:PORT, IPv6 in brackets, ports 1 to 65535"),
            b"",
        )
    else:
        host, port, path = _absolute(method, target)
    if block.count(b"\n") > FIELDS_LIMIT:
        raise HeadError(431, f"the head of the request has more than {FIELDS_LIMIT} fields")
    fields = tuple([(name, value.strip(b" \t")) for name, value in _FIELD.findall(block)])
    connection = _judge_fields(fields, host, port, connect=method == b"CONNECT", minor=minor)
    return RequestHead(
        raw=head,
        method=method,
        host=host,
        port=port,
        path=path,
        fields=fields,
        connection=connection,
        minor=1 if minor == b"1" else 0,
    )


def list_options(values: list[bytes]) -> frozenset[bytes]:
    """The members of comma-separated fields, in lower case."""
    return frozenset(option for value in values for part in value.lower().split(b",") if (option := part.strip(b" \t")))


# -- targets ------------------------------------------------------------------------------------------------------


def _authority(text: bytes, default_port: int | None, otherwise: str) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise HeadError(400, otherwise)
    bracketed, name, digits = match.groups()
    port = int(digits) if digits else default_port
    if port is None or port > 65535:
        raise HeadError(400, otherwise)
    return (bracketed or name).decode("ascii"), port


def _absolute(method: bytes, target: bytes) -> tuple[str, int, bytes]:
    if method.upper() in (b"CONNECT", b"PRI"):
        raise HeadError(
            400, "that method is written CONNECT" if method != b"PRI" else "this proxy does not speak HTTP/2"
        )
    if method.upper() == b"TRACE":
        raise HeadError(
            501, "TRACE is not forwarded: whoever answers it shows what was sent, credentials of ours included"
        )
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise _wrong_form(target)
    authority, path = match.groups()
    if b"@" in authority:
        raise HeadError(400, "a URL with a user name or password in it is not forwarded: send an Authorization field")
    host, port = _authority(
        authority, 80, "the URL's host or port is malformed: http://HOST[:PORT]/, IPv6 in brackets, ports 1 to 65535"
    )
    if not path.startswith(b"/"):
        # RFC 9112 section 3.2.4: an OPTIONS of the server as a whole arrives there as `*`.
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    return host, port, path


def _wrong_form(target: bytes) -> HeadError:
    if target.startswith(b"/") or target == b"*":
        return HeadError(
            400, "this is a proxy, not a server: ask for a whole URL, http://HOST/PATH, or CONNECT HOST:PORT"
        )
    scheme = _SCHEME.match(target)
    if scheme is None:
        return HeadError(
            400, "only a CONNECT names HOST:PORT; every other method asks for a whole URL, http://HOST/PATH"
        )
    if scheme.group(1).lower() == b"http":
        return HeadError(400, "a URL is asked for without its fragment")
    if scheme.group(1).lower() == b"https":
        return HeadError(400, "https:// is not forwarded in the open: use CONNECT HOST:443")
    return HeadError(501, "only http:// is forwarded: for other schemes use CONNECT HOST:PORT or SOCKS5")


# -- fields -------------------------------------------------------------------------------------------------------


def _judge_fields(
    fields: tuple[tuple[bytes, bytes], ...], host: str, port: int, *, connect: bool, minor: bytes
) -> frozenset[bytes]:
    """Refuse what would be read in two ways; return the options of Connection."""
    hosts, lengths, encodings, connections = [], [], [], []
    for name, value in fields:
        lowered = name.lower()
        if lowered == b"host":
            hosts.append(value)
        elif lowered == b"content-length":
            lengths.append(value)
        elif lowered == b"transfer-encoding":
            encodings.append(value)
        elif lowered == b"connection":
            connections.append(value)
    _judge_host(hosts, host, port, required=minor == b"1")
    if lengths or encodings:
        _judge_framing(lengths, encodings, connect=connect, minor=minor)
    options = list_options(connections)
    if not options.isdisjoint(_FRAMING):
        raise HeadError(400, "Connection names a field that belongs to the request itself")
    return options


def _judge_host(hosts: list[bytes], host: str, port: int, *, required: bool) -> None:
    if not hosts:
        if required:
            raise HeadError(400, "an HTTP/1.1 request has a Host field")
        return
    if len(hosts) > 1:
        raise HeadError(400, "the request has more than one Host field")
    named, at = _authority(hosts[0], port, "the Host field is not HOST or HOST:PORT")
    if at != port or (named != host and named.lower().rstrip(".") != host.lower().rstrip(".")):
        raise HeadError(400, "the Host field names another host or port than the request's target")


def _judge_framing(lengths: list[bytes], encodings: list[bytes], *, connect: bool, minor: bytes) -> None:
    if lengths and encodings:
        raise HeadError(400, "the request has both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or len(encodings) > 1:
        raise HeadError(400, "Content-Length or Transfer-Encoding stands twice")
    if encodings and encodings[0].lower() != b"chunked":
        raise HeadError(501, "the only Transfer-Encoding taken is chunked")
    if encodings and minor == b"0":
        raise HeadError(400, "an HTTP/1.0 request has no Transfer-Encoding")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise HeadError(400, "Content-Length is not a number of up to 18 digits without leading zeros")
    if connect and (encodings or int(lengths[0])):
        raise HeadError(400, "a CONNECT has no body")


# -- what is wrong with a head that does not match ----------------------------------------------------------------


def _find_fault(lines: bytes, *, first: bool) -> HeadError | None:
    """The first bad one of some complete lines; `first` says that the request line is the first of them."""
    for line in lines.split(b"\n")[:-1]:
        if not line.endswith(b"\r"):
            return HeadError(400, "a line of the head ends in LF without CR")
        fault = _request_line_fault(line) if first else _field_fault(line)
        if fault is not None:
            return fault
        first = False
    return None


def _request_line_fault(line: bytes) -> HeadError | None:
    match = _REQUEST_LINE.fullmatch(line + b"\n")
    if match is None:
        return HeadError(400, "the request line is not METHOD TARGET HTTP/1.1, in printable ASCII with single blanks")
    if match.group(3) not in (b"1.0", b"1.1"):
        return HeadError(505, "this proxy speaks HTTP/1.1 and HTTP/1.0 only")
    return None


def _field_fault(line: bytes) -> HeadError | None:
    if line == b"\r" or _FIELD.fullmatch(line + b"\n"):
        return None
    if line[:1] in (b" ", b"\t"):
        return HeadError(400, "a field is folded over several lines")
    return HeadError(400, "a field is not NAME: VALUE, without blanks in the name and without control characters")


def _not_http(first: int) -> str:
    if first == 0x16:
        return "this port is spoken to in the open, not in TLS: write the proxy's URL with http://"
    return "what came is neither HTTP nor SOCKS5"
