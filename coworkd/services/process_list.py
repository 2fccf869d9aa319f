"""Many processes → an answer that one message can carry; one that starts → its event.

Rules
- What runs goes before what has ended, the newest first; the rest is counted in `omitted`, and `process.get` has each.
- An entry is whole or not there: no argument is cut. Of an event's argv what stands behind the first `EVENT_ARGV_BYTES` is left out.
- The first that would not fit ends it, so that "the newest" is true.

Sizes are estimated from above, not encoded. Source: docs/protocol.md, L-3 and L-5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coworkd.model.calls import ProcessList
from coworkd.model.names import OsBytes
from coworkd.model.process import ProcessInfo
from coworkd.services.process_live import LiveProcess

VALUES = 60_000
BYTES = 3 * 1024 * 1024
EVENT_ARGV_BYTES = 4096
_ENTRY_VALUES = 72
_STREAM_VALUES = 8
_ENTRY_BYTES = 1024
_WORD_BYTES = 5


def compose_list(processes: Iterable[ProcessInfo]) -> ProcessList:
    """Those of `processes` that fit, oldest first."""
    known = sorted(processes, key=lambda info: (info.state != "exited", info.started_at), reverse=True)
    values = size = taken = 0
    for info in known:
        values += _ENTRY_VALUES + _STREAM_VALUES * len(info.streams) + len(info.argv)
        size += _ENTRY_BYTES + sum(len(bytes(word)) + _WORD_BYTES for word in info.argv)
        if values > VALUES or size > BYTES:
            break
        taken += 1
    shown = sorted(known[:taken], key=lambda info: info.started_at)
    return ProcessList(processes=tuple(shown), omitted=len(known) - taken)


def compose_start(process: LiveProcess) -> dict[str, Any]:
    """The parameters of `process.start`."""
    argv, size = list[bytes](), 0
    for word in process.argv:
        size += len(word) + _WORD_BYTES
        if size > EVENT_ARGV_BYTES:
            argv.append(word[: max(0, EVENT_ARGV_BYTES - size)] + b"...")
            break
        argv.append(word)
    return {
        "process": process.id,
        "session": process.session,
        "argv": [OsBytes(word) for word in argv],
        "pid": process.pid,
        "started_at": process.started_at,
        "one_shot": process.one_shot,
    }
