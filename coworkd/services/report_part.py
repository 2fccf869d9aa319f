"""One part of a report of an error: where it comes from, and by which rule it may leave the machine. And what an audit log looks like.

A part that cannot be had is missing with its reason; the others do not mind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from coworkd.model.errors import CoworkError
from coworkd.services.report_redact import (
    HEX,
    VERSION,
    WORD,
    Redactor,
    Rule,
    command,
    each,
    form,
    mapping,
    name,
    number,
    prose,
    record,
)

AUDIT_RECORDS = 200


class Part(NamedTuple):
    """`collect` gives what `rule` is applied to, or raises `CoworkError` or `OSError`."""

    file: str
    source: str
    collect: Callable[[], Any]
    rule: Rule


EXIT = record({"code": number, "signal": prose, "reason": form(WORD), "inferred": number, "scope": form(WORD)})
AUDIT_RECORD: Rule = record(
    {
        **dict.fromkeys(
            ("seq", "at", "pid", "launcher_pid", "egress_pid", "code", "count", "took_s", "delta_s"), number
        ),
        "kind": form(WORD),
        "session": name,
        "process": name,
        "reason": prose,
        "message": prose,
        "mode": form(WORD),
        "stage": form(WORD),
        "errno": number,
        "state": form(WORD),
        "version": form(VERSION),
        "exit": EXIT,
        "argv": command,
        "cwd": command,
        "path": command,
        "paths": command,
        "to": command,
    }
)
AUDIT_SHAPE: Rule = record(
    {
        "verified": record(
            {**dict.fromkeys(("ok", "records", "first", "last"), number), "head": form(HEX), "problem": prose}
        ),
        "kinds_of_the_last": mapping(form(WORD), number),
        "starts_without_an_end": each(number),
        "last": each(AUDIT_RECORD),
    }
)


def shape_of(records: Sequence[Mapping[str, Any]], verified: Mapping[str, Any]) -> dict[str, Any]:
    """What an audit log looks like from outside: what kinds of records it ends with, and which starts of coworkd had no end."""
    cut_short: list[Any] = []
    started_at: Any = None
    for one in records:
        if one.get("kind") == "daemon.start":
            if started_at is not None:
                cut_short.append(started_at)
            started_at = one.get("at")
        elif one.get("kind") == "daemon.stop":
            started_at = None
    return {
        "verified": dict(verified),
        "kinds_of_the_last": dict(Counter(str(one.get("kind")) for one in records).most_common()),
        "starts_without_an_end": cut_short,
        "last": [dict(one) for one in records],
    }


def collect(part: Part, redactor: Redactor) -> tuple[Any, str | None]:
    """The redacted part, or None and why it is missing."""
    try:
        return part.rule(redactor, part.collect()), None
    except CoworkError as error:
        return None, f"{error.code.value}: {redactor.scrub(error.message)}"
    except OSError as error:
        return None, redactor.scrub(error.strerror or str(error))
