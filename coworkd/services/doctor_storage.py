"""The session disk's part of doctor: can sessions stand on it, is a reserve held back, are the programs there that see to it.

Plain functions from facts to one `Finding` each, as in `services.doctor`. Nothing is written and no device is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from coworkd.model.calls import Finding

DISK_TOOLS = ("mke2fs", "e2fsck", "resize2fs", "tune2fs", "blkid", "setpriv")


class StorageFacts(Struct, frozen=True, kw_only=True):
    """What the running coworkd knows of it. `reason` is what is wrong, or what limits; `mark` the percentage that is passed, 0 for none."""

    kind: str
    state: str
    reason: str | None
    mark: int
    project_quota: bool
    reserve_missing: str | None


class StorageProbes(Protocol):
    """The facts. Each raises `OSError` where the machine refuses."""

    def storage(self) -> StorageFacts | None:
        """None where no coworkd runs that could be asked."""

    def missing_tools(self) -> tuple[str, ...]:
        """Those of `DISK_TOOLS` that are not there."""


def check_storage(probes: StorageProbes) -> Finding:
    facts = probes.storage()
    if facts is None:
        return Finding(check="session-disk", state="ok", detail="not asked: no coworkd runs")
    remedy = "docs/storage.md says what ends it; coworkctl storage usage shows how it is now"
    if facts.state != "ok":
        detail = f"{facts.state}, nothing can be started: {facts.reason}"
        return Finding(check="session-disk", state="failed", detail=detail, remedy=remedy)
    if facts.mark:
        detail = f"over {facts.mark} percent full"
        helps = "coworkctl session prune, delete sessions that are no longer needed, or let it grow"
        return Finding(check="session-disk", state="degraded", detail=detail, remedy=helps)
    for lack in (facts.reason, facts.reserve_missing and f"no reserve for a full disk: {facts.reserve_missing}"):
        if lack:
            return Finding(check="session-disk", state="degraded", detail=lack, remedy=remedy)
    counted = "the kernel counts what each session has" if facts.project_quota else "coworkd looks now and then"
    return Finding(check="session-disk", state="ok", detail=f"{facts.kind}; {counted}")


def check_disk_tools(probes: StorageProbes) -> Finding:
    missing = probes.missing_tools()
    if missing:
        return Finding(
            check="disk-tools",
            state="degraded",
            detail=f"missing: {', '.join(missing)}; no session disk can be made or checked",
            remedy="install e2fsprogs and util-linux; a directory needs neither",
        )
    return Finding(check="disk-tools", state="ok", detail="those of e2fsprogs and util-linux are there")


STORAGE_CHECKS: dict[str, Callable[[StorageProbes], Finding]] = {
    "session-disk": check_storage,
    "disk-tools": check_disk_tools,
}
