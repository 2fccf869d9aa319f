"""A client, an inspecting pump and a server in one room: Python's own TLS at both ends, every byte of the wire moved by hand."""

from __future__ import annotations

import ssl
from typing import Any

from coworkd.egressd.inspect_ca import InspectionCa
from coworkd.egressd.inspect_pump import InspectedPump
from coworkd.egressd.pump import Sends
from tests.unit.certificates import Made, make, make_authority

HOST = "api.example"
ROOT = make_authority()
SERVER = make(HOST, by=ROOT, hosts=(HOST,))
CA = InspectionCa()
"""One for all tests: that certificates are made anew is test_inspect_ca's."""
CA.trust(ROOT.pem)


class Peer:
    """One end of TLS; `heard` is what it was told."""

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None
    ) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self.heard = b""
        self.ended = False
        self.torn = False
        self.error: ssl.SSLError | None = None
        self._established = False
        self._waiting = b""

    def say(self, data: bytes) -> None:
        self._waiting += data
        self._go_on()

    def end(self) -> None:
        """close_notify."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            return

    def receive(self, data: bytes) -> None:
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        self._go_on()

    def _go_on(self) -> None:
        try:
            if not self._established:
                self.tls.do_handshake()
                self._established = True
            if self._waiting:
                self.tls.write(self._waiting)
                self._waiting = b""
            while not self.ended:
                said = self.tls.read(65536)
                self.heard += said
                self.ended = not said
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLEOFError:
            self.torn = self.ended = True
        except ssl.SSLError as error:
            self.error = error


class Room:
    """The three, and what was told of requests. `step` bounds how many bytes are moved at once."""

    def __init__(
        self,
        *,
        host: str = HOST,
        port: int = 443,
        server: ssl.SSLContext | None = None,
        client: ssl.SSLContext | None = None,
        server_name: str | None = HOST,
        approved: tuple[str, ...] = (),
        step: int = 1 << 20,
    ) -> None:
        self.told: list[tuple[str, str, int, str]] = []
        self.full = False
        """Whether whoever is told of requests has no room for more."""
        self.pump = InspectedPump(
            host,
            port,
            server_context=CA.server_context(host),
            client_context=CA.client_context(),
            approved=approved,
            tell=self._tell,
        )
        self.client = Peer(client or trusting(), server_hostname=server_name)
        self.server = Peer(server or serving(SERVER), server_side=True)
        self.step = step
        self.to_client = bytearray()
        self.to_upstream = bytearray()

    def begin(self) -> None:
        self._take(self.pump.start())
        self.client.say(b"")
        self.settle()

    def ask(self, data: bytes) -> bytes:
        """The client says it; what the server heard anew."""
        before = len(self.server.heard)
        self.client.say(data)
        self.settle()
        return self.server.heard[before:]

    def answer(self, data: bytes) -> bytes:
        """The server says it; what the client heard anew."""
        before = len(self.client.heard)
        self.server.say(data)
        self.settle()
        return self.client.heard[before:]

    def settle(self) -> None:
        """Move bytes until none is left."""
        while True:
            outgoing = self.client.outgoing.read()
            incoming = self.server.outgoing.read()
            if not outgoing and not incoming and not self.to_client and not self.to_upstream:
                return
            for piece in self._pieces(outgoing):
                self._take(self.pump.receive_client(piece))
            for piece in self._pieces(incoming):
                self._take(self.pump.receive_upstream(piece))
            client, self.to_client = bytes(self.to_client), bytearray()
            upstream, self.to_upstream = bytes(self.to_upstream), bytearray()
            for piece in self._pieces(client):
                self.client.receive(piece)
            for piece in self._pieces(upstream):
                self.server.receive(piece)

    def end_of_client(self) -> None:
        """Its socket ends."""
        self._take(self.pump.receive_client(b""))
        self.settle()

    def end_of_server(self) -> None:
        self._take(self.pump.receive_upstream(b""))
        self.settle()

    def _tell(self, *words: Any) -> bool:
        self.told.append(words)
        return self.full

    def _take(self, sends: Sends) -> None:
        self.to_client += sends.client
        self.to_upstream += sends.upstream

    def _pieces(self, data: bytes) -> list[bytes]:
        return [data[at : at + self.step] for at in range(0, len(data), self.step)]


def trusting(ca_pem: bytes = CA.pem) -> ssl.SSLContext:
    """A client that trusts the inspection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca_pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def serving(made: Made) -> ssl.SSLContext:
    """A server with that certificate, which would take HTTP/2."""
    context = made.server_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def opened(**options: object) -> Room:
    """A room in which both handshakes are done."""
    room = Room(**options)  # type: ignore[arg-type]
    room.begin()
    return room
