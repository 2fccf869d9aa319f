"""The end of coworkd-egress of its one conversation: a SEQPACKET socket to the supervisor.

Answers that do not fit now wait in order, as many as `_ANSWER_LIMIT`: a supervisor that asks and never reads is cut off, as is one that
breaks the words. Events are told only while nothing waits, so they wait where they are kept. What a session does goes on meanwhile.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence

import msgspec

from coworkd.model.egress import Answer, EgressEvent, Request, Told
from coworkd.system.supervised import SupervisorSocket

_ANSWER_LIMIT = 1024
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


class SupervisorLink(SupervisorSocket[Request]):
    """One supervisor's connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, _decoder)
        self._waiting: deque[bytes] = deque()

    @property
    def behind(self) -> bool:
        """Whether answers wait for the socket to take them."""
        return bool(self._waiting)

    def answer(self, answer: Answer) -> None:
        """Send, or wait behind what waits."""
        message = _encoder.encode(answer)
        if self._waiting or not self.send_nowait(message):
            self._waiting.append(message)
            self.closed = self.closed or len(self._waiting) > _ANSWER_LIMIT

    def tell(self, events: Sequence[EgressEvent]) -> bool:
        """Send events; False if the socket takes none now, nothing being kept here."""
        return not self._waiting and self.send_nowait(_encoder.encode(Told(events=tuple(events))))

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._waiting and self.send_nowait(self._waiting[0]):
            self._waiting.popleft()

    def close(self) -> None:
        """Let go of the socket and of what waits."""
        super().close()
        self._waiting.clear()
