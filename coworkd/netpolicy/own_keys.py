"""Own keys: what stands under `coworkd` in srt-settings.

Rules: unlike sandbox-runtime's keys all of these are strict: one that is not known is a mistake, told with the nearest there is.
What is not given is as in `EgressSettings` and `EgressLimits`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from coworkd.model.egress import EgressLimits, Inspection
from coworkd.netpolicy.patterns import Wrong, refuse_domain_name, why_never
from coworkd.netpolicy.presets import NAMES
from coworkd.netpolicy.schema import Check, list_of, parsed, table, told
from coworkd.settings import BadValue
from coworkd.settings.values import choice, flag, integer, listed, number

DAY_S = 24 * 3600.0
LIMITS: Mapping[str, Any] = {
    "connections": integer(1, 65536),
    "rate_per_s": number(0.01, 1e6),
    "burst": integer(1, 1_000_000),
    "connect_s": number(0.1, 600),
    "head_s": number(0.1, 600),
    "idle_s": number(1, 7 * DAY_S),
}
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")


class OwnKeys(Struct, frozen=True, kw_only=True):
    """What was given under `coworkd`."""

    presets: tuple[str, ...] = ()
    limits: EgressLimits = EgressLimits()
    allow_private: bool = False
    inspect: Inspection | None = None


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.match(value):
        raise BadValue("wants the SHA-256 of a token, in 64 hexadecimal digits")
    return value.lower()


def _digests(value: object) -> tuple[str, ...]:
    """An empty list could be meant to let nothing pass, and would let everything."""
    digests: tuple[str, ...] = listed(_digest)(value)
    if not digests:
        raise BadValue("wants the sum of at least one token; leave it out where no token is to be asked for")
    return digests


def _refuse_inspected(entry: str) -> Wrong | None:
    """A domain that is to be looked at and matches nothing would go unseen."""
    wrong = refuse_domain_name(entry)
    if wrong is not None:
        return wrong
    why = why_never(entry)
    return None if why is None else (f"{entry!r} matches nothing, for {why}", None)


_INSPECT = table(
    {
        "domains": list_of(told(_refuse_inspected, "a domain without a port"), 1),
        "token_sha256": parsed(_digests),
    },
    required=("domains",),
    strict=True,
)
OWN: Check = table(
    {
        "presets": parsed(listed(choice(*NAMES))),
        "limits": table({key: parsed(parser) for key, parser in LIMITS.items()}, strict=True),
        "allow_private": parsed(flag),
        "inspect": _INSPECT,
    },
    strict=True,
)
"""The table itself."""


def read_own_keys(tree: Mapping[str, Any]) -> OwnKeys:
    """The values in a table that `OWN` found nothing wrong with."""
    inspect = tree.get("inspect")
    return OwnKeys(
        presets=tuple(tree.get("presets", ())),
        limits=EgressLimits(**{key: LIMITS[key](value) for key, value in tree.get("limits", {}).items()}),
        allow_private=tree.get("allow_private", False),
        inspect=None
        if inspect is None
        else Inspection(
            domains=tuple(inspect["domains"]), token_sha256=tuple(map(_digest, inspect.get("token_sha256", ())))
        ),
    )
