"""Which disk is the session disk, and what is to be done with it. Pure: facts in, a decision with its reason out.

Rules
- The one that is called so, by its serial number or by the label of its file system; where two are, neither.
- Where none is: the one disk that is blank, or on which a format of ours was begun; where two are, neither. A blank disk that is removable,
  read-only, in use, or that the root file system lies on, is not meant.
- Whatever is called so and is neither blank nor ours is left as it is, and what was found is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from coworkd.system.block_devices import Disk
from coworkd.workers.disk_probe import Content


class Candidate(Struct, frozen=True, kw_only=True):
    """A disk, and what was found on it. `busy` says why it could not be looked at; empty where it could."""

    disk: Disk
    content: Content
    busy: str = ""


class Refused(Exception):
    """Nothing is mounted, for this reason. `none_there`: there was nothing that could be meant."""

    def __init__(self, reason: str, *, none_there: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.none_there = none_there


class Plan(Struct, frozen=True, kw_only=True):
    """`format` makes a file system; `check` sees to the one there is, by the copy of its superblock at `backup` where that is not 0."""

    action: Literal["format", "check"]
    backup: int = 0


def choose(candidates: Sequence[Candidate], label: str) -> Candidate:
    """Raises `Refused`."""
    called = [one for one in candidates if _is_called(one, label)]
    if len(called) > 1:
        raise Refused(f"{len(called)} disks are called {label!r}: {_names(called)}; take all but one away")
    if called:
        return called[0]
    free = [one for one in candidates if one.content.what in ("blank", "begun") and _may_be_meant(one)]
    if len(free) > 1:
        raise Refused(f"{len(free)} disks are blank: {_names(free)}; give the serial number {label!r} to one of them")
    if free:
        return free[0]
    looked = "; ".join(f"{one.disk.name}: {one.busy or describe(one.content)}" for one in candidates)
    raise Refused(
        f"no disk is called {label!r}, and none is blank ({looked or 'there is no other disk'})", none_there=True
    )


def plan(candidate: Candidate) -> Plan:
    """What to do with the one that was chosen. Raises `Refused`."""
    disk, content = candidate.disk, candidate.content
    name = disk.path.decode("utf-8", "replace")
    if candidate.busy:
        raise Refused(f"{name} is in use: {candidate.busy}")
    if disk.read_only:
        raise Refused(f"{name} is read-only")
    if disk.users and content.what in ("blank", "begun"):
        raise Refused(f"{name} is in use by {', '.join(disk.users)}")
    return plan_content(content, name)


def plan_content(content: Content, name: str) -> Plan:
    """The same for a device that needs no choosing. Raises `Refused`."""
    if content.what in ("blank", "begun"):
        return Plan(action="format")
    if content.what in ("ours", "damaged"):
        return Plan(action="check", backup=content.backup)
    raise Refused(f"{name} is left as it is: {describe(content)}; {_REMEDIES[content.what]}")


def describe(content: Content) -> str:
    return content.detail or content.what


_REMEDIES = {
    "foreign": "to use it, save what is on it and blank it by hand (blkdiscard --zeroout), or attach another",
    "unreadable": "look at the kernel's log; the disk may be failing",
    "small": "attach a bigger one",
    "cut": "give it back its size; it is checked then",
}


def _is_called(candidate: Candidate, label: str) -> bool:
    superblock = candidate.content.superblock
    by_label = candidate.content.what in ("ours", "damaged", "cut")
    return candidate.disk.serial == label or (by_label and superblock is not None and superblock.label == label)


def _may_be_meant(candidate: Candidate) -> bool:
    disk = candidate.disk
    return not (disk.removable or disk.read_only or disk.users or candidate.busy)


def _names(candidates: Sequence[Candidate]) -> str:
    return ", ".join(one.disk.path.decode("utf-8", "replace") for one in candidates)
