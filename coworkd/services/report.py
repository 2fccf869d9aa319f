"""What this machine tells for a report of an error, put together where coworkd runs and redacted before it leaves.

A host that has a link can have it (`report`), and whoever is root here without one (`coworkctl doctor --bundle`): by the same rules.
Everything is read, nothing changed. Blocking, so for a worker thread. At most `REPORT_BYTES` of JSON: what comes late is left out then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from coworkd.config import Config
from coworkd.model.calls import Report, Reported, ReportPart
from coworkd.services.report_machine import parts_of_machine
from coworkd.services.report_part import Part, collect
from coworkd.services.report_proc import parts_of_proc
from coworkd.services.report_redact import Redactor
from coworkd.services.report_words import Words

REPORT_BYTES = 3 * 1024 * 1024
"""Below the 4 MiB a guest may send in one message."""


def report(config: Config, params: Report, pids: Mapping[str, int]) -> Reported:
    """`pids` are coworkd's programs by name."""
    redactor = Redactor(
        Words.of_this_program(),
        with_names=params.with_names,
        with_commands=params.with_commands,
        salt=params.salt or None,
    )
    for name in params.names:
        redactor.pseudonym(name)
    room = REPORT_BYTES
    parts = []
    for part in parts_here(config, pids, audit=False):
        told = tell(part, redactor)
        room -= len(told.json or "")
        if room < 0:
            told = ReportPart(file=part.file, source=part.source, missing="the report is long enough without it")
        parts.append(told)
    return Reported(parts=tuple(parts))


def parts_here(config: Config, pids: Mapping[str, int], *, audit: bool) -> Iterator[Part]:
    """All that this machine tells; `audit`: the log as well, because coworkd does not tell of it."""
    yield from parts_of_machine(config, audit=audit)
    yield from parts_of_proc(pids)


def tell(part: Part, redactor: Redactor) -> ReportPart:
    """Collect one."""
    before = redactor.removed
    value, why = collect(part, redactor)
    if why is not None:
        return ReportPart(file=part.file, source=part.source, missing=why)
    left_out = redactor.removed - before
    return ReportPart(file=part.file, source=part.source, json=json.dumps(value), left_out=left_out)
