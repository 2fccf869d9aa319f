"""The shapes of the calls about the machine itself: its boot, its clock, its end. See docs/protocol.md."""

from __future__ import annotations

from msgspec import Struct

from coworkd.model.calls import Answer, Mutating


class BootStep(Struct, frozen=True, kw_only=True):
    """One span of coming up, in seconds since the kernel's start (CLOCK_MONOTONIC: time asleep does not count)."""

    group: str
    """`kernel`, `initrd`, `system` (all of systemd), `unit` (one of its units) or `coworkd`."""
    name: str
    start_s: float
    took_s: float
    error: str | None = None


class BootTime(Answer, frozen=True, kw_only=True):
    """Where the time of this boot went. `ready_s` is None while coworkd is coming up."""

    boot_id: str
    steps: tuple[BootStep, ...]
    ready_s: float | None
    notes: tuple[str, ...] = ()
    """What could not be found out, and why."""


class SyncClock(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    time: float
    """The host's, in seconds since the epoch."""


class ClockSynced(Answer, frozen=True, kw_only=True):
    """`offset_s` is what the host's clock was ahead of the guest's; `stepped` whether that was made good."""

    offset_s: float
    stepped: bool
    reason: str = ""
    """Why not, where it was not and the offset is over the threshold."""


class Shutdown(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    reason: str = ""
    budget_s: float | None = None
    """Of all of it, from TERM to power off. None: the configuration's."""
    power_off: bool = False
    """The machine too, not only coworkd."""
