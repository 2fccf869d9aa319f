"""Kinds: what a policy file is, told by its content.

`.toml` is ours: the ceiling where the file is called `ceiling.toml`, else a profile. JSON with `defaultAction` is an OCI
seccomp profile, with `network` or `filesystem` it is srt-settings. Anything else is refused, never guessed.
"""

from __future__ import annotations

from enum import Enum

from coworkd.policy.layers import CEILING
from coworkd.settings import BadFile, Finding
from coworkd.settings.findings import did_you_mean
from coworkd.settings.json_lines import parse_json

_TELLING = ("defaultAction", "network", "filesystem")


class Kind(str, Enum):
    """What a file holds."""

    PROFILE = "profile"
    CEILING = "ceiling"
    SECCOMP = "seccomp"
    EGRESS = "egress"


def tell_kind(data: bytes, *, file: str) -> Kind:
    """Return what `data` is; raises `BadFile` for what is not JSON, or none of ours."""
    name = file.rpartition("/")[2]
    if name.endswith(".toml"):
        return Kind.CEILING if name == CEILING else Kind.PROFILE
    tree, lines = parse_json(data, file=file)
    if "defaultAction" in tree:
        return Kind.SECCOMP
    if "network" in tree or "filesystem" in tree:
        return Kind.EGRESS
    said = "has neither defaultAction (OCI seccomp) nor network or filesystem (srt-settings)"
    for key in tree:
        hint, close = did_you_mean(key, _TELLING)
        if close is not None:
            finding = Finding(file=file, line=lines.line((key,)), key=key, message=said + hint, nearest=close)
            raise BadFile([finding])
    raise BadFile([Finding(file=file, line=1, key="", message=said)])
