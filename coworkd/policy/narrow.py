"""Narrow: profile ∩ ceiling ∩ request, and a sentence for everything that became less than was asked.

Invariants
- The result is never wider than the profile, the ceiling or the request, whichever is the narrowest (tested as a property).
- Nothing is cut in silence: a difference between what was written or asked and what holds has its sentence.
- What has no order cannot be cut: a seccomp, settings or upstream name that the ceiling does not list is `PolicyDenied`.
- Where 0 is no limit (`keys.NONE_IS_ZERO`) it is wider than any number.
- `memory_high` is a wish: where it is not below `memory_max`, a sixteenth below that is what the kernel is told (`sandbox.limits`).
"""

from __future__ import annotations

import math
from typing import Any

from coworkd.model.errors import InvalidParams, PolicyDenied
from coworkd.model.policy import LimitsRequest, Profile
from coworkd.policy.ceiling import Ceiling
from coworkd.policy.keys import LIMIT_KEYS, MAX_TIMEOUT_S, NONE_IS_ZERO, SIZE_KEYS, build_profile, flatten
from coworkd.settings import BadValue
from coworkd.settings.values import size_text

_NAMED = ("sandbox.seccomp", "egress.settings", "egress.upstream")
_FORCED_TO = {"sandbox.base": "strict", "sandbox.ask_delete": True, "folders.allow_sockets": False}
"""Keys of two values: the narrower one, which a ceiling can force."""


def narrow(profile: Profile, ceiling: Ceiling, request: LimitsRequest) -> tuple[Profile, tuple[str, ...]]:
    """Return what holds, and what was narrowed.

    Raises `PolicyDenied` where the ceiling does not list a name the profile uses, `InvalidParams` where the request
    has a value that cannot be meant (zero, negative, NaN).
    """
    values = flatten(profile)
    told: list[str] = []
    for key, bound in ceiling.bounds.items():
        values[key] = _bounded(key, values[key], bound, profile.name, told)
    for key, parse in LIMIT_KEYS.items():
        leaf = key.partition(".")[2]
        asked = getattr(request, leaf, None)
        if asked is None:
            continue
        try:
            asked = parse(asked)
        except BadValue as error:
            raise InvalidParams(f"{key}: {error.message}", key=key) from error
        if _is_wider(key, asked, values[key]):
            told.append(f"{key}: {_said(key, asked)} was asked, {_said(key, values[key])} is what the policy allows")
        else:
            values[key] = asked
    return build_profile(profile.name, values), tuple(told)


def narrow_timeout(profile: Profile, asked_s: float | None) -> tuple[float, str | None]:
    """The seconds a command may run (0: no end) and a sentence if that is less than was asked; None asks for nothing.

    Raises `InvalidParams` for a negative number, NaN or one over ten years.
    """
    limit_s = profile.limits.timeout_s
    if asked_s is None:
        return limit_s, None
    if math.isnan(asked_s) or not 0 <= asked_s <= MAX_TIMEOUT_S:
        raise InvalidParams(
            f"timeout_s: {asked_s} is not a number of seconds from 0 (none) to {MAX_TIMEOUT_S:.0f}", key="timeout_s"
        )
    if _is_wider("limits.timeout_s", asked_s, limit_s):
        asked = _said("limits.timeout_s", asked_s)
        return limit_s, f"limits.timeout_s: {asked} was asked, {limit_s:g} s is what the policy allows"
    return float(asked_s), None


def narrow_spool(profile: Profile, asked_bytes: int | None, usual_bytes: int) -> tuple[int, str | None]:
    """What may be kept of one stream, and a sentence if that is less than was asked; None asks for what is usual."""
    limit_bytes = profile.limits.spool_max_bytes
    if asked_bytes is None or asked_bytes <= limit_bytes:
        return min(asked_bytes or usual_bytes, limit_bytes), None
    asked, allowed = size_text(asked_bytes), size_text(limit_bytes)
    return limit_bytes, f"limits.spool_max: {asked} was asked, {allowed} is what the policy allows"


def _bounded(key: str, value: Any, bound: Any, profile: str, told: list[str]) -> Any:
    if key in _NAMED:
        if value not in bound:
            allowed = ", ".join(bound) or "none"
            raise PolicyDenied(
                f"profile {profile!r} wants {key} = {value!r}, but the ceiling allows {allowed}; use another profile",
                key=key,
                rule=f"ceiling {key}",
            )
        return value
    if key in _FORCED_TO:
        result = bound if bound == _FORCED_TO[key] else value
    elif isinstance(value, tuple):
        result = tuple(element for element in value if element in bound)
    else:
        result = bound if _is_wider(key, value, bound) else value
    if result != value:
        told.append(f"{key}: profile {profile!r} says {_said(key, value)}, the ceiling leaves {_said(key, result)}")
    return result


def _is_wider(key: str, value: float, bound: float) -> bool:
    if key in NONE_IS_ZERO:
        return (value or math.inf) > (bound or math.inf)
    return value > bound


_NOTHING = LimitsRequest()


def narrow_request(own: LimitsRequest, asked: LimitsRequest) -> tuple[LimitsRequest, tuple[str, ...]]:
    """The narrower of both, limit by limit, and a sentence for each that `own`, which is a session's, cut."""
    if asked == _NOTHING:
        return own, ()
    kept: dict[str, int | float | None] = {}
    cut = []
    for leaf in LimitsRequest.__struct_fields__:
        key, of_session, of_request = f"limits.{leaf}", getattr(own, leaf), getattr(asked, leaf)
        given = [value for value in (of_session, of_request) if value is not None]
        kept[leaf] = given[0] if given else None
        if len(given) == 2 and not _is_wider(key, of_request, of_session):
            kept[leaf] = of_request
        elif len(given) == 2:
            cut.append(f"{key}: {_said(key, of_request)} was asked, the session has {_said(key, of_session)}")
    return LimitsRequest(**kept), tuple(cut)  # type: ignore[arg-type]  # each value came from a field of this name


def _said(key: str, value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if key in NONE_IS_ZERO and not value:
        return "no timeout" if key == "limits.timeout_s" else "no limit"
    if key in ("limits.timeout_s", "limits.cpu_time_s"):
        return f"{value:g} s"
    return size_text(value) if key in SIZE_KEYS else str(value)
