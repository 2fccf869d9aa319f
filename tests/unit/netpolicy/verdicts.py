"""What sandbox-runtime 0.0.83 itself says, asked once: rows of input and answer by what was asked.

Its schema, `canonicalizeHost`, `matchesDomainPatternWithPort` and `shouldBypassParentProxy` were called under Node.js 20 with inputs of our
own. Left out are hosts that it passes on without understanding them, and hosts with labels that no resolver takes: we refuse both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_VERDICTS: dict[str, list[list[Any]]] = json.loads(Path(__file__).with_name("srt_verdicts.json").read_bytes())


def verdicts(asked: str) -> list[list[Any]]:
    """The rows there are for `asked`."""
    return _VERDICTS[asked]


def settings(**changes: Any) -> dict[str, Any]:
    """The smallest valid settings with `changes`: keys as `network__allowedDomains`, or whole tables."""
    whole: dict[str, Any] = {
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []},
    }
    for path, value in changes.items():
        table, _, key = path.partition("__")
        if key:
            whole[table][key] = value
        else:
            whole[table] = value
    return whole
