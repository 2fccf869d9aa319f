"""Kinds: what may be recorded, field by field.

Rules
- A kind or a field that is not in `KINDS` is refused with the nearest right spelling: what nobody listed cannot slip
  in. No kind has a field for environment values, stdin, output, tokens or file contents; of an environment only names.
- Every kind may say `session`, `process` and `link`. None is left out.
- Beside a field that was cut stands `<field>_cut` (see `fields`).
- Fields are written in the order of the table, whatever order they came in.

Pure. It adds no `seq`, `at`, `boot`, `prev`, `hash`: those belong to `chain`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from coworkd.auditlog.fields import Refused, Rule, flag, integer, map_of, maps_of, number, signal, text, texts
from coworkd.model.errors import InternalError

_TYPES: dict[str, Rule] = {
    "text": text,
    "texts": texts,
    "integer": integer,
    "number": number,
    "flag": flag,
    "signal": signal,
    "limits": map_of(
        *("memory_max", "memory_max_bytes", "memory_high", "memory_high_bytes", "swap_max", "swap_max_bytes"),
        *("pids_max", "cpu_max", "cpu_weight", "io_weight", "tmp_max", "tmp_max_bytes", "disk_max", "disk_max_bytes"),
        *(
            "nofile",
            "fsize_max",
            "fsize_max_bytes",
            "cpu_time_s",
            "core_max",
            "core_max_bytes",
            "spool_max_bytes",
            "timeout_s",
        ),
    ),
    "exit": map_of("code", "signal", "reason", "inferred", "scope", "limit_bytes", "peak_bytes", "pids_refused"),
    "rusage": map_of(
        *("user_s", "system_s", "max_rss_bytes", "minor_faults", "major_faults"),
        *("voluntary_switches", "involuntary_switches"),
    ),
    "streams": map_of("stdout", "stderr", "tty", "stdin"),
    "folders": maps_of("name", "source", "mode", "required", "error"),
}


def _table(*words: str) -> dict[str, Rule]:
    """`name:type` words to rules; a bare name is text."""
    pairs = (word.partition(":") for line in words for word in line.split())
    return {name: _TYPES[kind or "text"] for name, _, kind in pairs}


_WHO = _table("session process link")
_FAULT = "stage errno:integer code message incident"
_SESSION = _table(
    "uid:integer gid:integer profile state resume created:flag ephemeral:flag folders:folders",
    "failed_folders:folders limits:limits env_names:texts narrowed:texts",
)
_POLICY = _table(
    "profile profiles:texts changed:texts files:texts sha256 narrowed:texts rule source limits:limits",
)
_TRANSFER_END = _table("path stream reason entries:integer sent_bytes:integer received_bytes:integer took_s:number")
_CONNECTION = "connection:integer protocol host port:integer upstream address"

KINDS: dict[str, dict[str, Rule]] = {
    "audit.opened": _table("format:integer version"),
    "audit.recovered": _table("file bytes:integer"),
    "audit.damaged": _table("file reason after_seq:integer"),
    "audit.dropped": _table("files:texts kept_seq:integer kept_hash"),
    "audit.degraded": _table("reason"),
    "daemon.start": _table(
        "version pid:integer launcher_pid:integer egress_pid:integer mode profiles:texts endpoints:texts degraded:texts"
    ),
    "daemon.stop": _table("reason processes:integer"),
    "daemon.recovered": _table(
        "took_s:number running:integer ended:integer one_shots:integer sessions:integer approvals:integer lost:texts"
    ),
    "launcher.lost": _table("pid:integer reason"),
    "link.open": _table("peer endpoint client protocol:integer"),
    "link.close": _table("reason"),
    "link.refused": _table("peer endpoint reason"),
    "session.create": _SESSION,
    "session.ensure": _SESSION,
    "session.recover": {**_SESSION, **_table("reason uids_before:texts")},
    "session.delete": _table("uid:integer force:flag freed_bytes:integer reason"),
    "session.prune": _table("what:texts older_than_s:number larger_than_bytes:integer"),
    "session.quota": _table("used_bytes:integer limit_bytes:integer reason"),
    "session.retention": _table("reason bytes:integer goes_at:number"),
    "session.limits": _table("limits:limits narrowed:texts"),
    "process.limits": _table("limits:limits narrowed:texts"),
    "session.pause": _table(),
    "session.resume": _table(),
    "session.fail": _table(_FAULT),
    "process.start": _table(
        "argv:texts cwd env_names:texts uid:integer gid:integer profile stdin:flag tty:flag timeout_s:number",
        "limits:limits filters:texts narrowed:texts method",
    ),
    "process.start_failed": _table(_FAULT, "argv:texts"),
    "process.exit": _table(
        "exit:exit output bytes:streams rusage:rusage oom_kills:integer pid:integer started_at:number",
        "ended_at:number",
    ),
    "process.signal": _table("signal:signal"),
    "process.kill": _table("grace_s:number reason"),
    "process.adopt": _table("argv:texts state pid:integer started_at:number recorded:flag"),
    "process.denied": _table(_FAULT, "argv:texts rule"),
    "policy.load": _POLICY,
    "policy.reload": _POLICY,
    "policy.set": {**_POLICY, **_table("allowed:texts denied:texts closed:integer")},
    "policy.refused": _table(_FAULT, "file line:integer key"),
    "log.level": _table("component level"),
    "folder.mount": _table("name source mode required:flag"),
    "folder.unmount": _table("name reason"),
    "folder.mode": _table("name mode before"),
    "folder.commit": _table("name paths:texts overwrite:flag"),
    "folder.committed": _table("name paths:texts committed:integer conflicts:integer failed:integer"),
    "folder.discard": _table("name paths:texts"),
    "folder.change": _table("name path change to size:integer count:integer changed_at:number inferred:flag"),
    "approval.request": _table("approval name action paths:texts count:integer argv:texts"),
    "approval.answer": _table("approval name answer reason count:integer"),
    "egress.begin": _table("pid:integer sessions:texts degraded:texts"),
    "egress.decision": _table(_CONNECTION, "allowed:flag rule reason count:integer"),
    "egress.close": _table(_CONNECTION, "sent_bytes:integer received_bytes:integer took_s:number reason"),
    "egress.request": _table(_CONNECTION, "method path status:integer reason"),
    "egress.allow": _table("host until:number duration_s:number"),
    "forward.open": _table("port:integer stream"),
    "forward.close": _table(
        "port:integer stream reason sent_bytes:integer received_bytes:integer took_s:number",
    ),
    "bridge.open": _table("name listen connect origin"),
    "bridge.close": _table(
        "name listen connect origin reason connections:integer failed:integer sent_bytes:integer",
        "received_bytes:integer took_s:number",
    ),
    "file.write": _table("path size:integer append:flag"),
    "file.mkdir": _table("path"),
    "file.move": _table("path to overwrite:flag"),
    "file.remove": _table("path recursive:flag"),
    "file.upload": _table("path tar:flag size:integer stream"),
    "file.upload_end": _TRANSFER_END,
    "file.download": _table("path tar:flag stream"),
    "file.download_end": _TRANSFER_END,
    "file.change": _table("path change size:integer"),
    "storage.change": _table("device action bytes:integer message"),
    "update.apply": _table("version slot sha256"),
    "update.commit": _table("version slot"),
    "update.rollback": _table("version slot reason"),
    "update.refused": _table("version slot reason"),
    "tool.install": _table("name version sha256"),
    "tool.remove": _table("name version"),
    "ca.install": _table("name sha256 certificates:texts"),
    "ca.remove": _table("name sha256"),
    "clock.step": _table("before:number after:number delta_s:number source"),
}


_RULES = {kind: {**_WHO, **table} for kind, table in KINDS.items()}


def admit(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` as they are written.

    A kind, field or type that is not in `KINDS` raises `InternalError`: services write these, not callers.
    """
    rules = _RULES.get(kind)
    if rules is None:
        raise InternalError(f"audit kind {kind!r} is not one of ours{_nearest(kind, KINDS)}", key="kind")
    for name in fields:
        if name not in rules:
            raise InternalError(f"audit field {name!r} is not listed for {kind!r}{_nearest(name, rules)}", key=name)
    admitted: dict[str, Any] = {}
    for name, rule in rules.items():
        if name not in fields or (value := fields[name]) is None:
            continue
        try:
            admitted[name], cut = rule(value)
        except Refused as error:
            raise InternalError(f"audit field {name!r} of {kind!r} must be {error}", key=name) from error
        if cut is not None:
            admitted[f"{name}_cut"] = cut
    return admitted


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
