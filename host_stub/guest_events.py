"""What an event of coworkd's means, as a sentence for a person who reads what happens to a machine. Pure.

The event's own name and its parameters stay beside it in the event's details, for programs. Values are the guest's: each is cut, and
whoever shows the sentence escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VALUE_CHARACTERS = 200
_SENTENCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ready": ("the guest says that all of it is up", ()),
    "health": ("what works in the guest has changed", ()),
    "network.status": ("the guest's own network", ("status",)),
    "reachability": ("what the guest tries to reach", ("target", "reachable", "reason")),
    "storage.state": ("the session disk in the guest", ("state", "kind", "reason")),
    "storage.pressure": ("the session disk fills up, percent used", ("used_percent",)),
    "memory.oom": ("a command was ended because there was no memory left", ("session",)),
    "clock.stepped": ("the guest's clock was set, by seconds", ("delta_s", "source")),
    "clock.slept": ("the guest slept, for seconds", ("slept_s",)),
    "clock.synced": ("the guest was told the time", ("reason",)),
    "share.state": ("the share in the guest", ("state", "kind", "reason")),
    "update.applied": ("an update is in place, to be tried", ("version", "reason")),
    "update.committed": ("an update has proved itself and stays", ("version", "reason")),
    "update.rolled_back": ("an update was taken back", ("version", "reason")),
    "update.refused": ("an update was refused", ("version", "reason")),
}
"""An event's name → the sentence, and the parameters that end it."""
NAMES = frozenset(_SENTENCES)


def describe_event(name: str, params: Mapping[str, Any]) -> str:
    """One sentence; for an event that is not known here, one that names it."""
    sentence, fields = _SENTENCES.get(name, (f"the guest tells of {name[:_VALUE_CHARACTERS]}", ()))
    shown = [_shown(params[field]) for field in fields if params.get(field) not in (None, "")]
    return f"{sentence}: {', '.join(shown)}" if shown else sentence


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1f}" if isinstance(value, float) else str(value)[:_VALUE_CHARACTERS]
