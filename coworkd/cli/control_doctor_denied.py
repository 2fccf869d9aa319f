"""Which wall refused something, and what would let it through: a record of the audit log → one finding. Pure.

What a system call filter refuses leaves no record, since the kernel answers it: the last finding says how to find that out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coworkd.cli.control_tables import clock
from coworkd.model.calls import Finding

KINDS = (
    "egress.decision",
    "process.denied",
    "process.start_failed",
    "approval.answer",
    "policy.refused",
    "link.refused",
    "update.refused",
    "session.fail",
)
"""What is looked through: kinds that refuse, or may."""
_GRANTED = ("once", "session", "withdrawn", "ended")


def is_denial(record: Mapping[str, Any]) -> bool:
    """Whether the record says that something was not allowed."""
    kind = record.get("kind")
    if kind == "egress.decision":
        return record.get("allowed") is False
    if kind == "approval.answer":
        return record.get("answer") not in _GRANTED
    return kind in KINDS


def explain_denials(records: Sequence[Mapping[str, Any]], *, limit: int) -> Iterator[Finding]:
    """The newest `limit` denials, oldest first; equal ones once, with their number."""
    counted: dict[tuple[str, str, str], tuple[Finding, int]] = {}
    for record in records:
        if is_denial(record):
            finding = explain_denial(record)
            key = (finding.check, finding.detail.partition(" at ")[0], str(record.get("session")))
            counted[key] = (finding, counted.pop(key, (finding, 0))[1] + int(record.get("count") or 1))
    for finding, count in list(counted.values())[-limit:]:
        times = "" if count == 1 else f" ({count} times)"
        yield Finding(
            check=finding.check, state=finding.state, detail=f"{finding.detail}{times}", remedy=finding.remedy
        )
    yield Finding(
        check="system calls",
        state="ok",
        detail="what a filter of system calls refuses is answered by the kernel and leaves no record",
        remedy="coworkctl policy explain NAME says what the filters do with a call; strace in the session shows what is refused",
    )


def explain_denial(record: Mapping[str, Any]) -> Finding:
    """One denial: the wall it met, who met it and when, and what would change it."""
    wall, what, remedy = _WALLS.get(str(record.get("kind")), _other)(record)
    who = f"{record['session']}: " if record.get("session") else ""
    return Finding(
        check=wall, state="degraded", detail=f"{who}{what} at {clock(float(record.get('at', 0.0)))}", remedy=remedy
    )


Explained = tuple[str, str, str]


def _egress(record: Mapping[str, Any]) -> Explained:
    host, port, session = record.get("host"), record.get("port"), record.get("session") or "SESSION"
    reason = str(record.get("reason") or "refused")
    what = f"{host}:{port} was refused: {reason}"
    if "deny list" in reason:
        return (
            "egress rule",
            what,
            f"the rule {record.get('rule')} denies it, and no allowance lifts that: an admin changes the settings",
        )
    if "address" in reason:
        return (
            "address guard",
            what,
            "loopback, metadata and own addresses are never reached; private ones where the settings say coworkd.allow_private",
        )
    if "allow list" in reason:
        return (
            "egress rule",
            what,
            f"coworkctl egress allow {session} {host} --for 10m, or network.allowedDomains of its settings",
        )
    if "connections" in reason or "fast" in reason:
        return "egress limit", what, "coworkd.limits of the settings"
    return "egress", what, f"coworkctl egress check --session {session} {host} names the rule that decides"


def _process(record: Mapping[str, Any]) -> Explained:
    argv = " ".join(str(word) for word in record.get("argv") or ())[:120]
    what = f"{argv or 'a command'} was not started: {record.get('message') or record.get('code') or 'refused'}"
    if record.get("kind") == "process.denied":
        rule = record.get("rule")
        return (
            "ceiling" if rule else "policy",
            what,
            f"an admin's ceiling.toml or profile says so{f' ({rule})' if rule else ''}: coworkctl policy show",
        )
    stage = record.get("stage")
    remedies = {
        "not_found": "is the program in the guest, and in PATH? coworkctl run SESSION -- which NAME",
        "not_executable": "chmod +x, or name its interpreter",
        "bad_cwd": "is the directory there, and the session's?",
    }
    return "start", what, remedies.get(str(stage), "coworkctl doctor checks what sandboxes need")


def _approval(record: Mapping[str, Any]) -> Explained:
    why = record.get("reason") or record.get("answer")
    session, name = record.get("session") or "SESSION", record.get("name") or "FOLDER"
    what = f"a delete in {name} ({record.get('count') or 1} paths) was not granted: {why}"
    return "folder guard", what, f"answer in time (coworkctl approve), or coworkctl folder mode {session} {name} rwd"


def _policy(record: Mapping[str, Any]) -> Explained:
    where = ":".join(str(record[key]) for key in ("file", "line") if record.get(key))
    what = f"policies were not loaded, the old ones hold: {record.get('message') or where}"
    return "policy", what, "coworkctl policy check names file, line and key"


def _link(record: Mapping[str, Any]) -> Explained:
    return (
        "link",
        f"{record.get('peer')} may not connect to {record.get('endpoint')}: {record.get('reason')}",
        "only the host, CID 2, may use the vsock",
    )


def _update(record: Mapping[str, Any]) -> Explained:
    return "update", f"version {record.get('version')} was not taken: {record.get('reason')}", "coworkctl update status"


def _other(record: Mapping[str, Any]) -> Explained:
    return (
        str(record.get("kind")),
        str(record.get("message") or record.get("reason") or "refused"),
        "coworkctl audit tail",
    )


_WALLS = {
    "egress.decision": _egress,
    "process.denied": _process,
    "process.start_failed": _process,
    "approval.answer": _approval,
    "policy.refused": _policy,
    "link.refused": _link,
    "update.refused": _update,
}
