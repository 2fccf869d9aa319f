"""One part of a bundle: where it comes from, and by which rule it leaves the machine. And the parts that coworkd itself tells.

Rules
- A part that cannot be had is missing with its reason; the others do not wait for it longer than its own deadline.
- What is asked changes nothing.

Not here: what of this machine is looked at without coworkd (`bundle_machine`), and the file (`bundle_file`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from coworkd.cli.bundle_redact import (
    HEX,
    UUID,
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
    tree,
)
from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, DeadlineExceeded

ANSWER_S = 10.0
HANGS_S = 0.5
DOCTOR_S = 60.0
LOG_LINES = 1000
AUDIT_RECORDS = 200


class Part(NamedTuple):
    """`collect` gives what `rule` is applied to, or raises `CoworkError` or `OSError`."""

    file: str
    source: str
    collect: Callable[[], Any]
    rule: Rule


def _component(redactor: Redactor, value: Any) -> Any:
    """Which part of coworkd logs; of which session or folder, is left out."""
    return form(WORD)(redactor, value.partition(":")[0] if isinstance(value, str) else value)


FINDINGS = each(record({"check": form(WORD), "state": form(WORD), "detail": prose, "remedy": prose}))
_INFO = record(
    {
        "version": form(VERSION),
        "protocol": number,
        "boot_id": form(UUID),
        "kernel": form(VERSION),
        "machine": form(VERSION),
        "bubblewrap": prose,
        "pid": number,
        "launcher_pid": number,
        "state_dir": prose,
        "profiles": each(prose),
        "endpoints": each(prose),
    }
)
_HELLO = record(
    {
        "version": form(VERSION),
        "protocol": number,
        "boot_id": form(UUID),
        "features": each(form(WORD)),
        "degraded": mapping(prose, prose),
        "stages": each(record({"name": prose, "started_at": number, "took_s": number, "error": prose})),
    }
)
_BOOT = record(
    {
        "boot_id": form(UUID),
        "ready_s": number,
        "notes": each(prose),
        "steps": each(
            record({"group": form(WORD), "name": prose, "start_s": number, "took_s": number, "error": prose})
        ),
    }
)
_LOGS = record(
    {
        "dropped": number,
        "next": number,
        "missed": number,
        "lines": each(record({"at": number, "level": form(WORD), "component": _component, "message": prose})),
    }
)
_EXIT = record({"code": number, "signal": prose, "reason": form(WORD), "inferred": number, "scope": form(WORD)})
_SESSIONS = each(
    record(
        {
            "name": name,
            "uid": number,
            "state": form(WORD),
            "profile": prose,
            "created_at": number,
            "processes": number,
            "paused": number,
            "folders": each(record({"mode": form(WORD), "required": number})),
        }
    )
)
_PROCESSES = each(
    record(
        {
            "process": name,
            "session": name,
            "state": form(WORD),
            "pid": number,
            "started_at": number,
            "streams": mapping(form(WORD), each(number)),
            "argv": command,
            "exit": record({"exit": _EXIT, "output": form(WORD), "ended_at": number, "oom_kills": number}),
        }
    )
)
_EGRESS = record(
    {
        "pid": number,
        "degraded": each(prose),
        "unrecorded": number,
        "sessions": each(
            record(
                {
                    "session": name,
                    "connections": number,
                    "connections_total": number,
                    "refused_total": number,
                    "sent_bytes": number,
                    "received_bytes": number,
                }
            )
        ),
    }
)
_STORAGE = record(
    {
        **dict.fromkeys(("kind", "state", "quota"), form(WORD)),
        "reason": prose,
        **dict.fromkeys(
            ("size_bytes", "used_bytes", "free_bytes", "reserved_bytes", "inodes", "inodes_free", "pressure"), number
        ),
    }
)
_UPDATE = record(
    {
        "enabled": number,
        **dict.fromkeys(("running", "chosen"), prose),
        **dict.fromkeys(("version", "image_version", "floor"), form(VERSION)),
        "reason": prose,
    }
)
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
        "exit": _EXIT,
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


class _Asking:
    """Asks a coworkd that may hang: whoever has not answered once is given little time afterwards."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hangs = False

    def ask(
        self, method: str, params: Mapping[str, Any] | None = None, *, within_s: float = ANSWER_S
    ) -> dict[str, Any]:
        try:
            return self._client.call(method, params, timeout_s=min(within_s, HANGS_S) if self._hangs else within_s)
        except DeadlineExceeded:
            self._hangs = True
            raise


def parts_of_link(client: Client) -> Iterator[Part]:
    """What coworkd tells of itself."""

    ask = _Asking(client).ask
    # These first: from then on a session has its pseudonym wherever its name stands.
    yield Part("sessions.json", "session.list", lambda: ask("session.list")["sessions"], _SESSIONS)
    yield Part("processes.json", "process.list", lambda: ask("process.list")["processes"], _PROCESSES)
    yield Part("audit.json", "audit.verify, audit.tail", lambda: _audit(ask), AUDIT_SHAPE)
    yield Part("hello.json", "hello", lambda: msgspec.to_builtins(client.hello), _HELLO)
    yield Part("info.json", "info", lambda: ask("info"), _INFO)
    yield Part("stats.json", "stats", lambda: ask("stats"), tree)
    yield Part("boot-time.json", "boot_time", lambda: ask("boot_time"), _BOOT)
    yield Part("egress.json", "egress.status", lambda: ask("egress.status"), _EGRESS)
    yield Part("storage.json", "storage.usage", lambda: ask("storage.usage"), _STORAGE)
    yield Part("update.json", "update.status", lambda: ask("update.status"), _UPDATE)
    yield Part("logs.json", "logs", lambda: ask("logs", {"limit": LOG_LINES}), _LOGS)
    yield Part("doctor.json", "doctor", lambda: ask("doctor", within_s=DOCTOR_S)["findings"], FINDINGS)


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


def _audit(ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    verified = ask("audit.verify", within_s=DOCTOR_S)
    return shape_of(ask("audit.tail", {"limit": AUDIT_RECORDS})["records"], verified)
