"""Keys: every dotted key of a profile and of the ceiling, what may stand behind it, and where it lives in a `Profile`.

Invariants: both files have the same tables and keys, save `inherits`, which only a profile has; a key missing here does not
exist. Sizes are binary (see `settings.values`). The upper bounds are the kernel's own, so that a value that passes here
can be written to the kernel as it is.

Sources: proc(5) (`pid_max`), cgroup-v2 (`cpu.max`: the least quota is 1 ms of a 100 ms period; weights), sysctl/fs (`nr_open`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from coworkd.model.policy import EgressPolicy, FoldersPolicy, LimitsPolicy, Profile, SandboxPolicy
from coworkd.settings import BadValue, Parser
from coworkd.settings.values import choice, flag, integer, listed, name, number, size, text

MAX_WARM = 8
MAX_PIDS = 4_194_304
MAX_NOFILE = 1_048_576
MIN_CPU = 0.01
MAX_CPU = 4096.0
MAX_WEIGHT = 10_000
MIN_SPOOL = 64 * 1024
MAX_TIMEOUT_S = 10.0 * 365 * 24 * 3600

_URL = re.compile(r"(http|socks5h)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?\Z")


def _upstream(value: object) -> str:
    way = text(value)
    if way in ("direct", "host"):
        return way
    if "@" in way:
        raise BadValue("a proxy's password does not belong in a policy file, which anybody may be shown")
    url = _URL.match(way)
    if url is None or (url[3] is not None and not 0 < int(url[3]) <= 65535):
        raise BadValue(f"{way!r} is not a way out: direct, host, or a proxy (http://HOST:PORT, socks5h://HOST:PORT)")
    return way


LIMIT_KEYS: dict[str, Parser] = {
    "limits.memory_max": size(),
    "limits.memory_high": size(),
    "limits.swap_max": size(low=0),
    "limits.pids_max": integer(1, MAX_PIDS),
    "limits.cpu_max": number(MIN_CPU, MAX_CPU),
    "limits.cpu_weight": integer(1, MAX_WEIGHT),
    "limits.io_weight": integer(1, MAX_WEIGHT),
    "limits.tmp_max": size(),
    "limits.disk_max": size(),
    "limits.nofile": integer(1, MAX_NOFILE),
    "limits.fsize_max": size(low=0),
    "limits.cpu_time_s": integer(0, int(MAX_TIMEOUT_S)),
    "limits.core_max": size(low=0),
    "limits.spool_max": size(MIN_SPOOL),
    "limits.timeout_s": number(0, MAX_TIMEOUT_S),
}


def _keys(named: Parser, way: Parser) -> dict[str, Parser]:
    return {
        "sandbox.base": choice("dev", "strict"),
        "sandbox.seccomp": named,
        "sandbox.warm": integer(0, MAX_WARM),
        "sandbox.ask_delete": flag,
        **LIMIT_KEYS,
        "folders.modes": listed(choice("ro", "rw", "rwd", "staged")),
        "folders.allow_sockets": flag,
        "egress.settings": named,
        "egress.upstream": way,
        "egress.allow_max_s": number(0, MAX_TIMEOUT_S),
    }


PROFILE_KEYS: dict[str, Parser] = {"inherits": name, **_keys(name, _upstream)}
CEILING_KEYS: dict[str, Parser] = _keys(listed(name), listed(_upstream))
_ATTRIBUTES = {
    f"limits.{leaf}": f"{leaf}_bytes"
    for leaf in ("memory_max", "memory_high", "swap_max", "tmp_max", "disk_max", "fsize_max", "core_max", "spool_max")
}
SIZE_KEYS = frozenset(_ATTRIBUTES)
"""Keys whose value is in bytes."""
NONE_IS_ZERO = frozenset(["limits.timeout_s", "limits.fsize_max", "limits.cpu_time_s"])
"""Keys whose 0 is no limit, hence wider than any number."""
REQUIRED_KEYS = tuple(key for key in PROFILE_KEYS if key != "inherits")
"""What a profile must have once layers and `inherits` are resolved."""


def build_profile(profile: str, values: Mapping[str, Any]) -> Profile:
    """Return the `Profile` named `profile` from a value for every one of `REQUIRED_KEYS`."""

    def table(prefix: str) -> dict[str, Any]:
        return {
            _ATTRIBUTES.get(key, key.partition(".")[2]): values[key]
            for key in REQUIRED_KEYS
            if key.startswith(f"{prefix}.")
        }

    return Profile(
        name=profile,
        sandbox=SandboxPolicy(**table("sandbox")),
        limits=LimitsPolicy(**table("limits")),
        folders=FoldersPolicy(**table("folders")),
        egress=EgressPolicy(**table("egress")),
    )


def flatten(profile: Profile) -> dict[str, Any]:
    """The inverse of `build_profile`: dotted key → value, in the order of the manual page."""
    flat: dict[str, Any] = {}
    for key in REQUIRED_KEYS:
        table, _, leaf = key.partition(".")
        flat[key] = getattr(getattr(profile, table), _ATTRIBUTES.get(key, leaf))
    return flat
