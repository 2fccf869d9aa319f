"""A client that speaks SOCKS5 to us, CONNECT only.

Without authentication where the client offers that; else with a user name and a password, for clients that insist: any words are
taken, and none are kept. BIND and UDP ASSOCIATE are answered as not supported. A name is printable ASCII: what else a client may put
there (NUL, CRLF, anything over 7 bits) names no host.

Sources: RFC 1928 sections 3 to 6, RFC 1929 section 2.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Final

from coworkd.proxy.conversation import AHEAD, KEPT_LIMIT_BYTES, Conversation
from coworkd.proxy.events import Asked, Refusal, Route, Send, Tunnelled
from coworkd.proxy.refusals import compose_socks_refusal, compose_socks_reply

_GRANTED: Final = Send(data=compose_socks_reply(0x00))
_TUNNELLED: Final = Tunnelled()
_NO_AUTHENTICATION: Final = 0x00
_PASSWORD: Final = 0x02
_NAME: Final = re.compile(rb"[\x21-\x7e]+")
_GENERAL_FAILURE: Final = compose_socks_reply(0x01)


class Socks5Front(Conversation):
    """See `Front`, which this is the SOCKS half of."""

    __slots__ = ("_buffer", "_ended", "_read")

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray()
        self._ended = False
        # A function, not a bound method: that would be a cycle for each connection.
        self._read: Callable[[Socks5Front], bool] = Socks5Front._read_greeting

    @property
    def kept_bytes(self) -> int:
        return len(self._buffer)

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer)

    def receive_data(self, data: bytes) -> None:
        if not data:
            self._ended = True
        self._buffer += data
        while self.phase == "request" and self._read(self):
            pass
        if self.phase == "request" and self._ended:
            self._misuse("the connection ended inside a SOCKS request", b"", "socks5")
        elif self.phase == "decision" and len(self._buffer) > KEPT_LIMIT_BYTES:
            self._misuse(AHEAD, b"", "socks5", abrupt=True)

    def grant(self, route: Route) -> None:
        self._decided()
        self.phase = "tunnel"
        self.told.append(_GRANTED)
        self.told.append(_TUNNELLED)

    def refuse(self, refusal: Refusal) -> None:
        self._decided()
        self._end(compose_socks_refusal(refusal))

    def expire(self) -> None:
        self._misuse("a SOCKS request did not come in time", b"", "socks5")

    # -- each returns whether it took something: then what follows may be there as well

    def _read_greeting(self) -> bool:
        """VER NMETHODS METHODS…; VER was seen by whoever chose this class."""
        buffer = self._buffer
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return False
        offered = buffer[2 : 2 + buffer[1]]
        del buffer[: 2 + len(offered)]
        if _NO_AUTHENTICATION in offered:
            self.told.append(Send(data=b"\x05\x00"))
            self._read = Socks5Front._read_request
        elif _PASSWORD in offered:
            self.told.append(Send(data=b"\x05\x02"))
            self._read = Socks5Front._read_password
        else:
            self._misuse(
                "the SOCKS client offers neither no authentication nor user name and password", b"\x05\xff", "socks5"
            )
        return True

    def _read_password(self) -> bool:
        """VER=1 ULEN UNAME PLEN PASSWD."""
        buffer = self._buffer
        if not buffer:
            return False
        if buffer[0] != 1:
            self._misuse("the SOCKS user name and password have an unknown version", b"\x01\x01", "socks5")
            return True
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1]:
            return False
        end = 3 + buffer[1] + buffer[2 + buffer[1]]
        if len(buffer) < end:
            return False
        del buffer[:end]
        self.told.append(Send(data=b"\x01\x00"))
        self._read = Socks5Front._read_request
        return True

    def _read_request(self) -> bool:
        """VER CMD RSV ATYP DST.ADDR DST.PORT. All of it is read before it is refused: what is left unread resets the connection."""
        buffer = self._buffer
        if len(buffer) < 5:
            return False
        if buffer[0] != 5 or buffer[2] != 0:
            self._misuse(
                "the SOCKS request does not begin with version 5, or its reserved byte is not 0",
                _GENERAL_FAILURE,
                "socks5",
            )
            return True
        size = {1: 4, 3: 1 + buffer[4], 4: 16}.get(buffer[3])
        if size is None:
            self._misuse("the SOCKS request has an unknown type of address", compose_socks_reply(0x08), "socks5")
            return True
        if len(buffer) < 6 + size:
            return False
        command, kind, address = buffer[1], buffer[3], bytes(buffer[4 : 4 + size])
        port = int.from_bytes(buffer[4 + size : 6 + size], "big")
        del buffer[: 6 + size]
        self._judge_request(command, kind, address, port)
        return True

    def _judge_request(self, command: int, kind: int, address: bytes, port: int) -> None:
        if command != 1:
            self._misuse(
                "of SOCKS only CONNECT is served, not BIND or UDP ASSOCIATE", compose_socks_reply(0x07), "socks5"
            )
        elif port == 0:
            self._misuse("the SOCKS request names port 0", _GENERAL_FAILURE, "socks5")
        elif kind == 3 and not _NAME.fullmatch(address, 1):
            # 0x02, as sandbox-runtime answers what names no host.
            self._misuse(
                "the SOCKS request's name is empty or not printable ASCII", compose_socks_reply(0x02), "socks5"
            )
        else:
            self.phase = "decision"
            self.told.append(Asked(protocol="socks5", host=_host(kind, address), port=port, tunnel=True))


def _host(kind: int, address: bytes) -> str:
    if kind == 3:
        return address[1:].decode("ascii")
    return socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, address)
