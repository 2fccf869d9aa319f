"""Ceiling: what no profile and no request may exceed.

Invariants: a key that is not given bounds nothing; numbers are upper bounds (`timeout_s`: 0 is no bound); lists are what may
be chosen from; `base = "strict"` and `ask_delete = true` are forced on every profile, `allow_sockets = false` forbids them.
Over layers a higher one replaces whole keys, so an admin may also raise what the vendor's ceiling says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from coworkd.policy.keys import CEILING_KEYS
from coworkd.policy.layers import CEILING, Layer
from coworkd.settings import BadFile, Finding, Given, read_tables


class Ceiling(Struct, frozen=True):
    """Dotted key → bound, only for the keys that were given."""

    bounds: Mapping[str, Any] = {}


def parse_ceiling(data: bytes, *, file: str) -> dict[str, Given]:
    """The keys of one ceiling file, or `BadFile`."""
    return read_tables(data, file=file, schema=CEILING_KEYS)


def load_ceiling(layers: Sequence[Layer], findings: list[Finding]) -> dict[str, Given]:
    """The ceiling over all layers; what is wrong with a file is added to `findings`."""
    merged: dict[str, Given] = {}
    for layer in layers:
        data = layer.files.get(CEILING)
        if data is None:
            continue
        try:
            merged.update(parse_ceiling(data, file=f"{layer.root}/{CEILING}"))
        except BadFile as error:
            findings.extend(error.findings)
    return merged
