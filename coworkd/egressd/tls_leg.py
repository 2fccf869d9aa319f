"""The way to a parent proxy that is spoken to in TLS (`https://PROXY`), as a plain socket.

Whoever asks the proxy, relays or inspects has one end of a socket pair and knows nothing of it; between the other end and the proxy's
connection stands an `Exchange` that encrypts and decrypts. Costs four descriptors and a copy, which only such a parent does.

Rules
- Nothing is said to the proxy before its certificate was verified, for its name, by this system's trust and what a host installed.
- The proxy's orderly end (close_notify) is an end of file, and so is a torn one: what ran inside knows for itself if that was all.
- Who closes the plain end ends all of it, once what was sent has gone, `_LINGER_S` later at the latest.

Source: RFC 9110 section 9.3.6; unix(7).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from coworkd.egressd.exchange import Exchange, Outcome
from coworkd.egressd.farewell import Farewell
from coworkd.egressd.loop import Timer, Turning
from coworkd.egressd.pump import Sends

if TYPE_CHECKING:
    import ssl

    from coworkd.proxy.tls import TlsEnd

_LINGER_S = 5.0
_KEPT_LIMIT_BYTES = 65536


class ParentTrust:
    """What parent proxies are verified by; made when first needed, for it reads every certificate of the system."""

    def __init__(self) -> None:
        self._pem = ""
        self._context: ssl.SSLContext | None = None

    def trust(self, pem: str) -> None:
        """These certificates as well, in place of those given before."""
        self._pem = pem
        self._context = None

    def context(self) -> ssl.SSLContext:
        """Raises `ssl.SSLError` (an `OSError`) for certificates that cannot be read."""
        if self._context is None:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies, names too
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_default_certs()
            context.set_alpn_protocols(["http/1.1"])
            if self._pem:
                context.load_verify_locations(cadata=self._pem)
            self._context = context
        return self._context


class _TlsPump:
    """A `Pump`: plain bytes of the client's, TLS towards the upstream."""

    abrupt = False
    raw = False
    upstream_done = False

    def __init__(self, end: TlsEnd) -> None:
        self._end = end
        self.ended = False

    @property
    def wants_client(self) -> bool:
        return self._end.kept_bytes < _KEPT_LIMIT_BYTES

    def start(self) -> Sends:
        self._end.begin()
        return self._take(b"")

    def receive_client(self, data: bytes) -> Sends:
        if data:
            self._end.send(data)
        else:
            self._end.end()
        return self._take(b"")

    def receive_upstream(self, data: bytes) -> Sends:
        return self._take(self._end.receive_data(data))

    def lose_upstream(self, reason: str) -> Sends:
        self.ended = True
        return Sends()

    def _take(self, said: bytes) -> Sends:
        if self._end.failed is not None or self._end.ended:
            self.ended = True
        return Sends(client=said, upstream=self._end.outgoing())


class _PlainEnd(socket.socket):
    """The end that is given away: its close is the leg's."""

    leg: TlsLeg | None = None

    def close(self) -> None:
        super().close()
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.let_go()


class TlsLeg:
    """One connection to a proxy. `plain` is to be used, and closed, like a connection to it; `failed` says what TLS failed of."""

    def __init__(self, loop: Turning, upstream: socket.socket, context: ssl.SSLContext, hostname: str) -> None:
        """Owns `upstream`. Raises `OSError` where there is no descriptor; then the caller still does."""
        from coworkd.proxy.tls import TlsEnd

        near, inner = socket.socketpair()
        self.plain = _PlainEnd(fileno=near.detach())
        self.plain.setblocking(False)
        inner.setblocking(False)
        self.plain.leg = self
        self._loop = loop
        self._inner = inner
        self._end = TlsEnd(context, server_hostname=hostname)
        self._exchange: Exchange | None = Exchange(loop, _TlsPump(self._end), inner, upstream, self._over)
        self._farewell: Farewell | None = None
        self._timer: Timer | None = None

    @property
    def failed(self) -> str | None:
        return self._end.failed

    def start(self, *, registered: bool) -> None:
        """Begin the handshake; `registered` says whether the loop has the upstream."""
        assert self._exchange is not None
        self._exchange.start(
            to_client=b"", from_client=b"", from_upstream=b"", client_mask=0, upstream_mask=-1 if registered else 0
        )

    def let_go(self) -> None:
        """The plain end is closed."""
        if self._exchange is not None or self._farewell is not None:
            self._timer = self._loop.call_later(_LINGER_S, self._cut)

    def _over(self, outcome: Outcome, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self._farewell = Farewell(self._loop, self._inner, exchange.unsent[0], self._gone)
        self._farewell.start(registered=exchange.client_mask != 0)

    def _gone(self) -> None:
        self._farewell = None
        if self._timer is not None:
            self._timer.cancel()

    def _cut(self) -> None:
        if self._exchange is not None:
            self._exchange.end()
            self._exchange = None
            self._loop.forget(self._inner.fileno())
            self._inner.close()
        elif self._farewell is not None:
            self._farewell.cut()
