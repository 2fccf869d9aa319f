"""What every conversation with a client has, whichever protocol it speaks: told events, a phase, and bytes that wait.

Phases: `request` → `decision` → `tunnel`, or → `exchange` → `request` and so on; `ended` comes after any of them and stays.

What may wait is bounded. A caller does not read from the client while `wants_data` is False; one that does all the same, past
`KEPT_LIMIT_BYTES`, loses the client.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Literal

from coworkd.proxy.events import NEED_DATA, Ended, Event, Misused, Protocol, Refusal, Route, Send

READ_AHEAD_BYTES: Final = 65536
"""What a client may send ahead of the decision, or of the answer to its request before, until it is no longer read from."""
KEPT_LIMIT_BYTES: Final = 4 * READ_AHEAD_BYTES

AHEAD: Final = "the client sent too much ahead of what it waits for"

Phase = Literal["request", "decision", "exchange", "tunnel", "ended"]


class Conversation(ABC):
    """Not thread-safe; no method blocks, and none raises for what the client or a server sent."""

    __slots__ = ("phase", "told")

    def __init__(self) -> None:
        self.phase: Phase = "request"
        self.told: deque[Event] = deque()

    def next_event(self) -> Event:
        return self.told.popleft() if self.told else NEED_DATA

    @abstractmethod
    def receive_data(self, data: bytes) -> None: ...

    @abstractmethod
    def grant(self, route: Route) -> None: ...

    @abstractmethod
    def refuse(self, refusal: Refusal) -> None: ...

    @abstractmethod
    def expire(self) -> None: ...

    def receive_upstream(self, data: bytes) -> None:
        raise RuntimeError("only a granted HTTP exchange has an upstream that this core reads")

    def lose_upstream(self, refusal: Refusal) -> None:
        raise RuntimeError("only a granted HTTP exchange has an upstream that this core reads")

    @property
    @abstractmethod
    def kept_bytes(self) -> int: ...

    @property
    @abstractmethod
    def rest(self) -> bytes: ...

    # -- for those who speak

    def _decided(self) -> None:
        """Called first by `grant` and `refuse`."""
        if self.phase != "decision":
            raise RuntimeError(f"nothing waits for a decision: the conversation is in phase {self.phase}")

    def _misuse(self, reason: str, answer: bytes, protocol: Protocol, *, abrupt: bool = False) -> None:
        self.told.append(Misused(reason=reason, protocol=protocol))
        self._end(answer, abrupt=abrupt)

    def _end(self, answer: bytes = b"", *, abrupt: bool = False) -> None:
        if answer:
            self.told.append(Send(data=answer))
        self.told.append(Ended(abrupt=abrupt))
        self.phase = "ended"


class Over(Conversation):
    """One that ended before it had a protocol: in silence, or with a misuse that is answered."""

    __slots__ = ()

    def __init__(self, misuse: str = "", answer: bytes = b"") -> None:
        super().__init__()
        if misuse:
            self._misuse(misuse, answer, "unknown")
        else:
            self._end()

    @property
    def kept_bytes(self) -> int:
        return 0

    @property
    def rest(self) -> bytes:
        return b""

    def receive_data(self, data: bytes) -> None:
        """Nothing is listened to any more."""

    def expire(self) -> None:
        """It has ended already."""

    def grant(self, route: Route) -> None:
        self._decided()

    def refuse(self, refusal: Refusal) -> None:
        self._decided()
