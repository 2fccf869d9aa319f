"""A plain HTTP request on its way: the pump that drives a `Front` through one exchange.

It ends with the exchange; what the front has to say afterwards (another request, a misuse, the client's end) is its owner's to ask for.
"""

from __future__ import annotations

from coworkd.egressd.pump import Sends
from coworkd.proxy.events import Ended, NeedData, Refusal, Route, Send, SendUpstream, Tunnelled, UpstreamDone
from coworkd.proxy.front import Front


class HttpPump:
    """A `Pump`: one exchange of a front whose `Asked` is granted by `start`."""

    __slots__ = ("_front", "_route", "abrupt", "ended", "raw", "upstream_done")

    def __init__(self, front: Front, route: Route) -> None:
        self._front = front
        self._route = route
        self.upstream_done = False
        self.ended = False
        self.abrupt = False
        self.raw = False

    @property
    def wants_client(self) -> bool:
        return self._front.wants_data

    def start(self) -> Sends:
        self._front.grant(self._route)
        return self._take()

    def receive_client(self, data: bytes) -> Sends:
        if self._is_over:
            return Sends()
        self._front.receive_data(data)
        return self._take()

    def receive_upstream(self, data: bytes) -> Sends:
        if self._is_over:
            return Sends()
        self._front.receive_upstream(data)
        return self._take()

    def lose_upstream(self, reason: str) -> Sends:
        if self._is_over:
            return Sends()
        self._front.lose_upstream(Refusal(kind="connect", reason=reason))
        return self._take()

    @property
    def _is_over(self) -> bool:
        return self.upstream_done or self.ended or self.raw

    def _take(self) -> Sends:
        client, upstream = bytearray(), bytearray()
        while not self._is_over:
            event = self._front.next_event()
            if isinstance(event, Send):
                client += event.data
            elif isinstance(event, SendUpstream):
                upstream += event.data
            elif isinstance(event, UpstreamDone):
                self.upstream_done = True
            elif isinstance(event, Tunnelled):
                self.raw = True
            elif isinstance(event, Ended):
                self.ended, self.abrupt = True, event.abrupt
            else:
                assert isinstance(event, NeedData)
                break
        return Sends(bytes(client), bytes(upstream))
