"""Events: what the guest tells without being asked.

Two kinds. A *published* event has a sequence number and is kept in the ring (`events.subscribe {after}`). A
*stream* event (`process.output`, `stream.data`) belongs to one link, has offsets instead, and never enters the ring.
`process.exit` is both: it goes to every attached link after the last byte, and is published.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Event(Struct, frozen=True, kw_only=True):
    """A published event. `params` is what travels as the notification's map, plus `seq` and `at`."""

    seq: int
    at: float
    name: str
    params: dict[str, Any]
