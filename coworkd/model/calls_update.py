"""The shapes of `update.*`: what runs, what there is beside it, and how it is changed."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.call_shapes import Answer, Mutating

SlotChoice = Literal["0", "a", "b"]
SlotStatus = Literal["staged", "trying", "committed", "bad"]


class UpdateSlot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One slot that holds something. `sha256` is its manifest's."""

    slot: SlotChoice
    version: str
    sha256: str
    contents: tuple[str, ...]
    status: SlotStatus
    failures: int = 0
    reason: str | None = None
    """Why it is bad."""


class UpdateDisk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The update disk, as it was when it was looked at last. Without `why` what it holds was taken, or was here already."""

    device: str
    version: str | None = None
    why: str | None = None
    reason: str | None = None


class UpdateStatus(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """`running` is what answers, `chosen` what the next start begins with."""

    enabled: bool
    running: SlotChoice
    version: str
    image_version: str
    chosen: SlotChoice
    slots: tuple[UpdateSlot, ...]
    reason: str | None = None
    """Why there are no updates, or why what is chosen does not run."""
    disk: UpdateDisk | None = None
    floor: str | None = None
    """The newest version that was ever committed: nothing older is taken from a disk."""


class UpdateApply(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Take what the update disk holds. `again`: also what has turned out bad before. `restart` false: it runs from the next start on."""

    again: bool = False
    restart: bool = True


class UpdateApplied(Answer, frozen=True, kw_only=True):
    slot: SlotChoice
    version: str
    sha256: str
    restarting: bool


class UpdateRollback(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Go back: to `to`, else to what would come next by itself. What was chosen is not taken again unless somebody says so."""

    to: SlotChoice | None = None
    reason: str = "asked for"
    restart: bool = True


class UpdateRolledBack(Answer, frozen=True, kw_only=True):
    slot: SlotChoice
    version: str
    restarting: bool
