"""The variables by which a session's tools are told of the mirrors that its presets allow: which there are, and what may stand in them.

Rules
- Names are fixed, preset by preset; a file of presets names no other.
- An index is an http or https URL of a host that can be named. No user and no password: every command of a session sees it. No query and
  no fragment, for they hold keys more often than anything else; what stands in a path is taken as it is.
- Several in one value stand a space apart. A value is at most `MAX_VALUE_LENGTH` characters, none of them outside what URLs are made of.

Sources: RFC 3986 section 2 (characters of a URL); pip's, uv's, npm's and yarn's documentation of their variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from coworkd.netpolicy.hosts import BadHost, canonical_host
from coworkd.netpolicy.patterns import split_pattern

MAX_VALUE_LENGTH = 2048
SEPARATOR = " "

Kind = Literal["url", "urls", "hosts"]
"""`urls` and `hosts` are one or several."""

VARIABLES: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "node": {"NPM_CONFIG_REGISTRY": "url", "YARN_NPM_REGISTRY_SERVER": "url", "YARN_REGISTRY": "url"},
        "python": {
            "PIP_INDEX_URL": "url",
            "PIP_EXTRA_INDEX_URL": "urls",
            "PIP_TRUSTED_HOST": "hosts",
            "UV_DEFAULT_INDEX": "url",
            "UV_INDEX": "urls",
        },
    }
)
"""Preset → variable → what it holds. Presets that are not here set none."""

_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/\[\]@!$&'()*+,;=%?#]+\Z")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+\Z")


def refuse_variable(preset: str, name: str, value: str) -> str | None:
    """None where `preset` may set `name` to `value`, else why not, in words that repeat nothing of the value."""
    kind = VARIABLES.get(preset, {}).get(name)
    if kind is None:
        return f"is no variable that the preset {preset} sets"
    if not 1 <= len(value) <= MAX_VALUE_LENGTH:
        return f"wants 1 to {MAX_VALUE_LENGTH} characters"
    words = [value] if kind == "url" else value.split(SEPARATOR)
    refuse = refuse_host if kind == "hosts" else refuse_index
    return next((wrong for wrong in map(refuse, words) if wrong is not None), None)


def refuse_index(url: str) -> str | None:
    """None where `url` may be told to a session, else why not."""
    if not _URL.match(url):
        return "is no http or https URL"
    try:
        parts = urlsplit(url)
        canonical_host(parts.hostname or ""), parts.port
    except (ValueError, BadHost):
        return "is a URL without a host that can be named"
    if "@" in parts.netloc:
        return "has a user or a password in its URL"
    if "?" in url or "#" in url:
        return "has a query or a fragment in its URL"
    return None


def refuse_host(entry: str) -> str | None:
    """None where `entry` is `HOST` or `HOST:PORT`, else why not."""
    try:
        if not _HOST.match(entry):
            raise BadHost("other characters")
        canonical_host(split_pattern(entry)[0])
    except BadHost:
        return "is no HOST or HOST:PORT"
    return None
