"""The shapes of limits that change, and of sessions that stand still: `session.set_limits`, `process.set_limits`, `session.pause`,
`session.resume`.
"""

from __future__ import annotations

from typing import Any

from coworkd.model.call_shapes import Answer, Mutating
from coworkd.model.limits import GroupUsage
from coworkd.model.policy import LimitsRequest
from coworkd.model.session import SessionInfo


class SetSessionLimits(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is."""

    session: str
    limits: LimitsRequest


class SetProcessLimits(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    limits: LimitsRequest


class LimitsSet(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """`limits` hold now; `narrowed` says what was asked in vain, `warnings` what comes of what was asked."""

    limits: dict[str, Any]
    narrowed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    usage: GroupUsage | None = None
    """What was used before; None where it is not open."""


class PauseSession(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of `session.pause` and `session.resume`."""

    session: str


class SessionPaused(Answer, frozen=True, kw_only=True):
    """The answer of both. `frozen`: whether nothing of its commands runs any more, which one that sleeps in the kernel may hold up."""

    session: SessionInfo
    frozen: bool
