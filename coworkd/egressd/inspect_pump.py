"""One inspected connection as a pump: two TLS ends with the requests between them. See `inspect` for the rules."""

from __future__ import annotations

import ssl

from coworkd.egressd.pump import NOTHING, Sends, TellRequest
from coworkd.proxy.conversation import READ_AHEAD_BYTES
from coworkd.proxy.inspected import InspectedConversation
from coworkd.proxy.refusals import compose_http_misuse
from coworkd.proxy.tls import TlsEnd

_HANDSHAKE = 0x16
_PLAIN = "connections to this host are inspected, so TLS is expected on them and nothing else is passed"
_TORN = "the server's connection ended without its end having been said: what came may not be the whole"


class InspectedPump:
    """See `pump.Pump`. `raw` stays False: bytes behind a websocket's 101 go through both TLS ends."""

    raw = False

    def __init__(
        self,
        host: str,
        port: int,
        *,
        server_context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        approved: tuple[str, ...],
        tell: TellRequest,
    ) -> None:
        self._host = host
        self._client = TlsEnd(server_context)
        self._upstream = TlsEnd(client_context, server_hostname=host)
        self._requests = InspectedConversation(host, port, approved)
        self._tell = tell
        self._seen = False
        self._plain_answer = b""
        self._upstream_over = False
        self.ended = False
        self.abrupt = False

    @property
    def wants_client(self) -> bool:
        return self._requests.wants_client and self._upstream.kept_bytes < READ_AHEAD_BYTES

    @property
    def upstream_done(self) -> bool:
        """Never before `ended`: a client whose server is lost is still to be told so, here."""
        return self.ended

    def start(self) -> Sends:
        self._upstream.begin()
        if self._upstream.failed is not None:
            self._lose_upstream(f"{self._host}: {self._upstream.failed}")
        return self._sends()

    def receive_client(self, data: bytes) -> Sends:
        if self.ended:
            return NOTHING
        if not self._seen and data:
            self._seen = True
            if data[0] != _HANDSHAKE:
                return self._refuse_plain(data)
        said = self._client.receive_data(data)
        if said:
            self._requests.receive_client(said)
        if self._client.failed is not None:
            self._requests.lose_client(f"inspection failed toward the client: {self._client.failed}")
        elif self._client.ended:
            self._requests.receive_client(b"")  # it sends no more; an answer that runs is still its to have
        return self._sends()

    def receive_upstream(self, data: bytes) -> Sends:
        if self.ended or self._upstream_over:
            return NOTHING
        upstream = self._upstream
        said = upstream.receive_data(data)
        if said:
            self._requests.receive_upstream(said)
        if upstream.failed is not None:
            self._lose_upstream(f"{self._host}: {upstream.failed}")
        elif upstream.torn:
            self._requests.tear_upstream(_TORN)
            self._upstream_over = True
        elif upstream.ended:
            self._requests.receive_upstream(b"")
            self._upstream_over = True
        return self._sends()

    def lose_upstream(self, reason: str) -> Sends:
        if self.ended or self._upstream_over:
            return NOTHING
        self._lose_upstream(reason)
        return self._sends()

    def _lose_upstream(self, reason: str) -> None:
        self._requests.lose_upstream(reason)
        self._upstream_over = True

    def _refuse_plain(self, data: bytes) -> Sends:
        self._requests.lose_client(_PLAIN)
        if data[:1].isalpha():
            self._plain_answer = compose_http_misuse(400, _PLAIN)
        return self._sends()

    def _sends(self) -> Sends:
        """Tell what is to be told, and turn what is to be said into what is to be sent."""
        requests = self._requests
        client, upstream = requests.take()
        self._client.send(client)
        self._upstream.send(upstream)
        while requests.requests:
            one = requests.requests.popleft()
            if self._tell(one.method, one.path, one.status, one.reason):
                requests.take_no_more()
        if requests.phase == "ended" and not self.ended:
            self.ended = True
            self.abrupt = requests.abrupt and self._client.failed is None and not self._plain_answer
            self._upstream.end()
            if not requests.abrupt and not requests.torn:
                self._client.end()
        answer, self._plain_answer = self._plain_answer, b""
        return Sends(client=self._client.outgoing() + answer, upstream=self._upstream.outgoing())
