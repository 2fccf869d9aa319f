"""How we ask a proxy before us for a way out: HTTP's CONNECT (a parent proxy, the host), and SOCKS5.

Each is driven alike: send `outgoing()`, give `receive_data` what came (`b""` is the end of file), again until `done` or `failed`. Then
`rest` holds what came behind the handshake: the first bytes of the way itself.

An answer is taken to the letter: a proxy that is misunderstood here would pass its own bytes off as the server's.

Sources: RFC 9110 section 9.3.6, RFC 9112 section 4; RFC 1928, RFC 1929.
"""

from __future__ import annotations

import base64
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

_ANSWER_LIMIT_BYTES: Final = 16384
_STATUS: Final = re.compile(
    rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)
_MARK: Final = re.compile(rb"^x-proxy-error:[\t ]*([\x21-\x7e]{1,100})[\t ]*\r$", re.IGNORECASE | re.MULTILINE)
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,255}")
_VALUE: Final = re.compile(r"[ -~]{1,4096}")

_SOCKS_FAILURES: Final = {
    1: "a failure it does not explain",
    2: "its rules do not allow it",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the connection was refused",
    6: "it took too long",
    7: "it does not serve CONNECT",
    8: "it does not take this type of address",
}


class Handshake(ABC):
    """What both have in common. Raises `ValueError` for a host, port or words that cannot be said; never for what came."""

    def __init__(self, host: str, port: int) -> None:
        if not _HOST.fullmatch(host) or not 1 <= port <= 65535:
            raise ValueError(f"not a canonical host and port: {host!r}, {port}")
        self._outgoing = b""
        self._buffer = bytearray()
        self.done = False
        self.failed: str | None = None
        """A sentence; for people."""
        self.refused_by_policy = False
        """The proxy said no, rather than that it could not."""

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer) if self.done else b""

    def outgoing(self) -> bytes:
        """What is to be sent now; given once."""
        data, self._outgoing = self._outgoing, b""
        return data

    def receive_data(self, data: bytes) -> None:
        self._buffer += data
        if self.done or self.failed is not None:
            return
        while self._read():
            pass
        if not data and not self.done and self.failed is None:
            self._fail("it closed the connection before it answered")

    @abstractmethod
    def _read(self) -> bool:
        """Take one message of the proxy's; whether there may be another."""

    def _fail(self, reason: str, *, policy: bool = False) -> bool:
        self.failed = f"the parent proxy did not open a way: {reason}"
        self.refused_by_policy = policy
        return False


class HttpConnect(Handshake):
    """CONNECT through an HTTP proxy. `authorization` is the value of Proxy-Authorization (`compose_basic`); `session` is told to the host
    as Cowork-Session. `status` is what the proxy answered, and `mark` its X-Proxy-Error, as our own proxies send it.
    """

    def __init__(self, host: str, port: int, *, authorization: str | None = None, session: str | None = None) -> None:
        super().__init__(host, port)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if authorization is not None:
            lines.append(f"Proxy-Authorization: {_printable(authorization, 'credentials')}")
        if session is not None:
            lines.append(f"Cowork-Session: {_printable(session, 'session name')}")
        self._outgoing = "\r\n".join([*lines, "", ""]).encode("ascii")
        self.status: int | None = None
        self.mark: str | None = None

    def _read(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, _ANSWER_LIMIT_BYTES)
        if end < 0:
            if len(self._buffer) >= _ANSWER_LIMIT_BYTES:
                return self._fail(f"the head of its answer has more than {_ANSWER_LIMIT_BYTES} bytes")
            return False
        match = _STATUS.fullmatch(self._buffer, 0, end + 4)
        if match is None:
            return self._fail("its answer is not HTTP/1.1")
        status, phrase, fields = int(match.group(1)), match.group(2) or b"", match.group(3)
        del match, self._buffer[: end + 4]
        if status == 101:
            return self._fail("it answered 101 to a CONNECT")
        if status < 200:
            return True
        self.status = status
        if status < 300:
            self.done = True
            return False
        mark = _MARK.search(fields)
        self.mark = mark.group(1).decode("ascii") if mark else None
        return self._fail(_sentence(status, phrase), policy=status == 403)


class Socks5Client(Handshake):
    """CONNECT through a SOCKS5 proxy, which resolves the name; literal addresses go as such. `reply` is the code it answered."""

    def __init__(self, host: str, port: int, *, username: str | None = None, password: str | None = None) -> None:
        super().__init__(host, port)
        self._credentials = None if username is None else _socks_credentials(username, password or "")
        self._request = b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2, "big")
        self._outgoing = b"\x05\x01\x00" if self._credentials is None else b"\x05\x02\x00\x02"
        self._next: Callable[[Socks5Client], bool] = Socks5Client._read_method
        self.reply: int | None = None

    def _read(self) -> bool:
        return self._next(self)

    def _read_method(self) -> bool:
        if len(self._buffer) < 2:
            return False
        version, method = self._buffer[:2]
        del self._buffer[:2]
        if version != 5:
            return self._fail("its answer is not SOCKS5")
        if method == 2 and self._credentials is not None:
            self._outgoing += self._credentials
            self._next = Socks5Client._read_status
            return True
        if method != 0:
            return self._fail(
                "it asks for credentials that we have none of" if method in (2, 0xFF) else "it chose an unknown method"
            )
        return self._ask()

    def _read_status(self) -> bool:
        if len(self._buffer) < 2:
            return False
        version, status = self._buffer[:2]
        del self._buffer[:2]
        if version != 1 or status != 0:
            return self._fail("it does not take the user name and password")
        return self._ask()

    def _ask(self) -> bool:
        self._outgoing += self._request
        self._next = Socks5Client._read_reply
        return True

    def _read_reply(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        if buffer[0] != 5:
            return self._fail("its reply is not SOCKS5")
        self.reply = buffer[1]
        if self.reply != 0:
            return self._fail(_SOCKS_FAILURES.get(self.reply, f"reply {self.reply}"), policy=self.reply == 2)
        if len(buffer) < 5:
            return False
        size = {1: 4, 3: 1 + buffer[4], 4: 16}.get(buffer[3])
        if size is None or buffer[2] != 0:
            return self._fail("its reply is malformed")
        if len(buffer) < 6 + size:
            return False
        del buffer[: 6 + size]
        self.done = True
        return False


def compose_basic(username: str, password: str) -> str:
    """The value of a Proxy-Authorization field (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _printable(value: str, what: str) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError(f"the {what} cannot stand in a field: 1 to 4096 characters of printable ASCII")
    return value


def _sentence(status: int, phrase: bytes) -> str:
    if status == 407:
        return "it asks for credentials, or does not take those it got (407)"
    told = re.sub(rb"[^ -~]+", b" ", phrase)[:100].decode("ascii").strip()
    return f"it answered {status} {told}".rstrip()


def _socks_credentials(username: str, password: str) -> bytes:
    name, word = username.encode(), password.encode()
    if not 1 <= len(name) <= 255 or len(word) > 255:
        raise ValueError("a SOCKS user name has 1 to 255 bytes, a password up to 255")
    return b"\x01%c%b%c%b" % (len(name), name, len(word), word)


def _socks_address(host: str) -> bytes:
    for kind, family in ((b"\x01", socket.AF_INET), (b"\x04", socket.AF_INET6)):
        try:
            return kind + socket.inet_pton(family, host)
        except OSError:
            continue
    return b"\x03%c%b" % (len(host), host.encode("ascii"))
