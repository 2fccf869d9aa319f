"""Which calls are made again to another coworkd than the one that was asked, and had not answered. Pure.

One coworkd does a call once, however often it is made with its `request_id`; another has never heard of that id. Rules
- What only asks is asked again.
- What says how a thing shall be, and leaves it so when it is said twice, is said again: `process.kill`, limits, input at its offset, a
  start with an id of its own, which the other answers with `ALREADY_EXISTS`.
- Everything else may have been done or not. It is not done a second time: it fails, and says so (`was_cut_off`).
- What is to be gone and is not there was done (`says_done`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coworkd.client.methods import Method
from coworkd.model.errors import CoworkError, NotFound, Unavailable

_STAGE = "restarted"
_SAID_AGAIN = frozenset(
    {
        "set_log_level",
        "session.set_policy",
        "session.set_limits",
        "session.pause",
        "session.resume",
        "folder.set_mode",
        "process.close_stdin",
        "process.resize",
        "process.kill",
        "process.set_limits",
        "process.forget",
        "egress.allow",
        "policy.reload",
    }
)


def repeats(method: Method[..., Any], params: Mapping[str, Any]) -> bool:
    """Whether another coworkd may be asked the same."""
    if not method.mutating or method.name in _SAID_AGAIN:
        return True
    if method.name == "process.start":
        return params.get("id") is not None
    if method.name == "process.write_stdin":
        return params.get("offset") is not None
    return method.name == "session.ensure" and params.get("resume") != "new"


def compose_refusal(method: str) -> Unavailable:
    """What such a call fails with; `stage` is `restarted`."""
    done = (
        "what still ran was ended, and is not run a second time"
        if method == "process.run"
        else "whether it was done is not known, and it is not done a second time"
    )
    return Unavailable(
        f"coworkd was restarted before it had answered {method}: {done}; look at what it did, then call again",
        method=method,
        stage=_STAGE,
    )


def was_cut_off(error: CoworkError) -> bool:
    """Whether it is such a refusal: the call may have been done by a coworkd that is no more."""
    return isinstance(error, Unavailable) and error.details.get("stage") == _STAGE


def says_done(method: str, error: CoworkError) -> bool:
    """Whether another coworkd, asked the same, says by `error` that the first has done it."""
    return method == "process.forget" and isinstance(error, NotFound)


def are_of_one_coworkd(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """By two answers to `hello`: the moments of its coming up no other has. One that had been through none cannot be known again."""
    stages = before.get("stages") or []
    is_same = now.get("boot_id") == before.get("boot_id") and now.get("stages", [])[: len(stages)] == stages
    return is_same and bool(stages)
