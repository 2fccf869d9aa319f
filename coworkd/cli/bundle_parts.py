"""The parts of a bundle that coworkd itself tells, by its calls.

Rules
- A part that cannot be had is missing with its reason; the others do not wait for it longer than its own deadline.
- What is asked changes nothing.

Not here: what its machine tells (`services.report_machine`, `report_proc`), and the file (`bundle_file`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from coworkd.client.pending import read_answer
from coworkd.client.sync import Client
from coworkd.model.calls import Reported, ReportPart
from coworkd.model.errors import DeadlineExceeded
from coworkd.services.report_part import AUDIT_RECORDS, AUDIT_SHAPE, EXIT, Part, shape_of
from coworkd.services.report_redact import (
    UUID,
    VERSION,
    WORD,
    Redactor,
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

ANSWER_S = 10.0
HANGS_S = 0.5
DOCTOR_S = 60.0
LOG_LINES = 1000
NAMES_LIMIT = 4000
"""Of those that are told pseudonyms of, in one call: an array of the wire has at most 4,096."""
_FILE = re.compile(r"[a-z]{1,20}(?:-[a-z]{1,20})?\.json\Z")


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
            "exit": record({"exit": EXIT, "output": form(WORD), "ended_at": number, "oom_kills": number}),
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


class Asking:
    """Asks a coworkd that may hang: whoever has not answered once is given little time afterwards."""

    def __init__(self, client: Client) -> None:
        self.hello = client.hello
        self._client = client
        self._hangs = False

    def report(self, redactor: Redactor) -> Iterator[ReportPart]:
        """What the machine that coworkd runs on tells, redacted over there by the same pseudonyms. Raises `CoworkError`."""
        params = {
            "salt": redactor.salt,
            "names": list(redactor.names[:NAMES_LIMIT]),
            "with_names": redactor.with_names,
            "with_commands": redactor.with_commands,
        }
        answer = read_answer("report", self.ask("report", params, within_s=DOCTOR_S), Reported)
        # A guest is not believed in what its files are called: the name becomes a path on this machine.
        yield from (part for part in answer.parts if _FILE.match(part.file))

    def ask(
        self, method: str, params: Mapping[str, Any] | None = None, *, within_s: float = ANSWER_S
    ) -> dict[str, Any]:
        try:
            return self._client.call(method, params, timeout_s=min(within_s, HANGS_S) if self._hangs else within_s)
        except DeadlineExceeded:
            self._hangs = True
            raise


def parts_of_link(asking: Asking) -> Iterator[Part]:
    """What coworkd tells of itself."""
    ask = asking.ask

    # These first: from then on a session has its pseudonym wherever its name stands.
    yield Part("sessions.json", "session.list", lambda: ask("session.list").get("sessions"), _SESSIONS)
    yield Part("processes.json", "process.list", lambda: ask("process.list").get("processes"), _PROCESSES)
    yield Part("audit.json", "audit.verify, audit.tail", lambda: _audit(ask), AUDIT_SHAPE)
    yield Part("hello.json", "hello", lambda: msgspec.to_builtins(asking.hello), _HELLO)
    yield Part("info.json", "info", lambda: ask("info"), _INFO)
    yield Part("stats.json", "stats", lambda: ask("stats"), tree)
    yield Part("boot-time.json", "boot_time", lambda: ask("boot_time"), _BOOT)
    yield Part("egress.json", "egress.status", lambda: ask("egress.status"), _EGRESS)
    yield Part("storage.json", "storage.usage", lambda: ask("storage.usage"), _STORAGE)
    yield Part("update.json", "update.status", lambda: ask("update.status"), _UPDATE)
    yield Part("logs.json", "logs", lambda: ask("logs", {"limit": LOG_LINES}), _LOGS)
    yield Part("doctor.json", "doctor", lambda: ask("doctor", within_s=DOCTOR_S).get("findings"), FINDINGS)


def _audit(ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    verified = ask("audit.verify", within_s=DOCTOR_S)
    return shape_of(ask("audit.tail", {"limit": AUDIT_RECORDS}).get("records") or (), verified)
