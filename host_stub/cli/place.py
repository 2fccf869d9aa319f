"""Where the bundle is when nobody names one, and sizes as people write them. Pure but for the environment it is given."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from host_stub.words import Trouble

BUNDLE_VARIABLE = "COWORK_BUNDLE"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def default_bundle(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """COWORK_BUNDLE, else `default` where programs of this system keep what they make: XDG data, or Application Support."""
    named = environment.get(BUNDLE_VARIABLE)
    if named:
        return Path(named)
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    if platform == "darwin":
        return home / "Library/Application Support/cowork-vm/default"
    data = environment.get("XDG_DATA_HOME") or ""
    return (Path(data) if data.startswith("/") else home / ".local/share") / "cowork-vm/default"


def parse_size(text: str) -> int:
    """`20G`, `512MiB` or plain bytes, as bytes. Raises `Trouble` (`bad_size`)."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise Trouble("bad_size", f"{text!r} is no size", remedy="write it as 512M or 20G")
    return int(found[1]) * _UNITS[found[2].upper()]
