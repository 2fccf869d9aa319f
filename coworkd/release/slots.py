"""Which coworkd runs: the image's own (slot `0`), or the release in slot `a` or `b`. A pure state machine; `store` writes it down.

    nothing ──stage──▶ staged ──begin──▶ trying ──commit (60 s healthy)──▶ committed
                          │                 │  FAILURES starts that came to nothing, or never healthy        │
                          └── spoil ───────▶ bad ◀── spoil (tampered, stale), rollback, FAILURES in a row ───┘

Rules
- `chosen` is the slot that is wanted. What may run is tried in this order: the chosen one, the other one if it was committed, `0`.
- Each start is written down before it is made (`begin`), and crossed out when it was healthy for a while (`commit`) or ended as wanted
  (`leave`). One that is still written down at the next start (`settle`) came to nothing. A start that had come up, and whose boot is
  over, may have been a power cut: INTERRUPTIONS of those are borne instead.
- What turned out bad is remembered by its manifest's SHA-256, and is not taken again unless somebody says so.
- `floor` is the newest version that was ever committed, and nothing older is taken from a disk; rolling back by hand goes below it.
- What must be in the audit log goes into `unrecorded` with the change itself, in one write; `recorded` takes it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from coworkd.model.update import Content
from coworkd.model.update import SlotName as SlotName
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.versions import parse_version

FAILURES = 2
INTERRUPTIONS = 5
BAD_LIMIT = 8
UNRECORDED_LIMIT = 64
CARRIED_LIMIT_BYTES = 64 * 1024
"""Of records that others have brought about: what they say is no reason to lose the state itself."""
REASON_LIMIT = 500

Chosen = Literal["0", "a", "b"]
Status = Literal["staged", "trying", "committed", "bad"]


class Slot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies in a slot. `sha256` is its manifest's."""

    version: str
    sha256: str
    contents: tuple[Content, ...]
    status: Status = "staged"
    failures: int = 0
    interruptions: int = 0
    reason: str = ""


class Attempt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A start of `slot` that nothing has come of yet."""

    slot: SlotName
    boot_id: str
    came_up: bool = False


class Bad(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    sha256: str
    reason: str


class Unrecorded(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An audit record that was due before there was a log."""

    kind: str
    fields: dict[str, Any]


class SlotState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `state.json`."""

    format: Literal[1] = 1
    chosen: Chosen = "0"
    a: Slot | None = None
    b: Slot | None = None
    attempt: Attempt | None = None
    floor: str = ""
    bad: tuple[Bad, ...] = ()
    unrecorded: tuple[Unrecorded, ...] = ()

    def slot(self, name: SlotName) -> Slot | None:
        return self.a if name == "a" else self.b


def check_state(state: SlotState) -> None:
    """What is read back must be what can be worked with. Raises `ReleaseRefused`."""
    for version in (*(slot.version for slot in (state.a, state.b) if slot is not None), state.floor or "0.0"):
        parse_version(version)


def other(name: SlotName) -> SlotName:
    return "b" if name == "a" else "a"


def free_slot(state: SlotState) -> SlotName:
    """Where a new release goes: never over the chosen one, and not over the one that could take its place where there is a choice."""
    if state.chosen != "0":
        return other(state.chosen)
    return "b" if state.a is not None and state.a.status == "committed" else "a"


def check_offer(state: SlotState, version: str, sha256: str, *, again: bool = False) -> SlotName | None:
    """Whether a release is to be taken: None where it is, else the slot that holds it already. Raises `ReleaseRefused`.

    `again`: also one that has turned out bad.
    """
    names: tuple[SlotName, SlotName] = ("a", "b")
    for name in names:
        slot = state.slot(name)
        if slot is not None and slot.sha256 == sha256 and slot.status != "bad" and state.chosen == name:
            return name
    if not again:
        for bad in state.bad:
            if bad.sha256 == sha256:
                raise ReleaseRefused("failed_before", f"{version} was tried and turned out bad: {bad.reason}")
    wanted = parse_version(version)
    newest = [state.floor] if state.floor else []
    if state.chosen != "0" and (chosen := state.slot(state.chosen)) is not None and chosen.status != "bad":
        newest.append(chosen.version)
    for known in newest:
        if wanted < parse_version(known) or (wanted == parse_version(known) and not again):
            raise ReleaseRefused("not_newer", f"it is {version}, and {known} is here already")
    return None


def clear(state: SlotState, name: SlotName) -> SlotState:
    """Before the content of a slot is touched."""
    return _with(state, name, None)


def stage(state: SlotState, name: SlotName, slot: Slot) -> SlotState:
    """The content is there, whole and durable: this is the switch."""
    known = tuple(bad for bad in state.bad if bad.sha256 != slot.sha256)
    made = structs.replace(_with(state, name, slot), chosen=name, bad=known)
    fields = {"version": slot.version, "slot": name, "sha256": slot.sha256}
    return _record(made, "update.apply", fields)


def candidate(state: SlotState) -> SlotName | None:
    """The slot to try; None for `0`."""
    if state.chosen == "0":
        return None
    chosen = state.slot(state.chosen)
    if chosen is not None and chosen.status != "bad":
        return state.chosen
    fallback = state.slot(other(state.chosen))
    return other(state.chosen) if fallback is not None and fallback.status == "committed" else None


def begin(state: SlotState, name: SlotName, *, boot_id: str) -> SlotState:
    """About to start `name`; write this down first."""
    slot = _there(state, name)
    status: Status = "trying" if slot.status == "staged" else slot.status
    made = _with(state, name, structs.replace(slot, status=status))
    return structs.replace(made, chosen=name, attempt=Attempt(slot=name, boot_id=boot_id))


def came_up(state: SlotState) -> SlotState:
    """The slot that was begun is ready."""
    attempt = state.attempt
    return state if attempt is None else structs.replace(state, attempt=structs.replace(attempt, came_up=True))


def leave(state: SlotState) -> SlotState:
    """It ends because it is wanted, whether it was healthy long enough or not."""
    return structs.replace(state, attempt=None)


def commit(state: SlotState, name: SlotName) -> SlotState:
    """It was healthy long enough."""
    slot = _there(state, name)
    fresh = slot.status != "committed"
    done = structs.replace(slot, status="committed", failures=0, interruptions=0, reason="")
    floor = state.floor
    if not floor or parse_version(slot.version) > parse_version(floor):
        floor = slot.version
    made = structs.replace(_with(state, name, done), attempt=None, floor=floor)
    return _record(made, "update.commit", {"version": slot.version, "slot": name}) if fresh else made


def settle(state: SlotState, *, boot_id: str) -> SlotState:
    """Judge the start before this one, at every start of the image's coworkd."""
    attempt = state.attempt
    slot = None if attempt is None else state.slot(attempt.slot)
    state = structs.replace(state, attempt=None)
    if attempt is None or slot is None:
        return state
    if attempt.came_up and attempt.boot_id != boot_id:
        slot = structs.replace(slot, interruptions=slot.interruptions + 1)
    else:
        slot = structs.replace(slot, failures=slot.failures + 1)
    state = _with(state, attempt.slot, slot)
    if slot.failures >= FAILURES:
        when = "after it had come up" if attempt.came_up else "before it had come up"
        return spoil(state, attempt.slot, f"it ended {slot.failures} times, the last time {when}")
    if slot.interruptions >= INTERRUPTIONS:
        return spoil(
            state, attempt.slot, f"the guest went down {slot.interruptions} times before it was healthy for long enough"
        )
    return state


def spoil(state: SlotState, name: SlotName, reason: str) -> SlotState:
    """`name` is not started again; what comes next is chosen."""
    slot = _there(state, name)
    reason = reason[:REASON_LIMIT]
    state = _with(state, name, structs.replace(slot, status="bad", reason=reason))
    bad = Bad(version=slot.version, sha256=slot.sha256, reason=reason)
    known = tuple(known for known in state.bad if known.sha256 != slot.sha256)
    state = structs.replace(state, bad=(*known, bad)[-BAD_LIMIT:], attempt=None)
    if state.chosen == name:
        state = structs.replace(state, chosen=candidate(state) or "0")
    return _record(state, "update.rollback", {"version": slot.version, "slot": state.chosen, "reason": reason})


def roll_back(state: SlotState, to: Chosen | None, reason: str) -> SlotState:
    """What a person asks for. `to` None: what would come next by itself. Raises `ReleaseRefused` where there is nothing there."""
    if state.chosen == "0" and to in (None, "0"):
        raise ReleaseRefused("missing_file", "the image's own version runs already, there is nothing before it")
    if to == state.chosen:
        raise ReleaseRefused("not_newer", f"slot {to} is chosen already")
    if to in ("a", "b"):
        wanted = state.slot("a" if to == "a" else "b")
        if wanted is None or wanted.status not in ("committed", "staged"):
            raise ReleaseRefused("missing_file", f"slot {to} holds nothing that could be gone back to")
    if state.chosen != "0":
        state = spoil(state, state.chosen, reason)
    return state if to is None else structs.replace(state, chosen=to)


def refuse(state: SlotState, *, version: str, slot: Chosen, reason: str) -> SlotState:
    """Write down what was refused before there was a log."""
    return _record(state, "update.refused", {"version": version, "slot": slot, "reason": reason[:REASON_LIMIT]})


def carry(state: SlotState, records: Iterable[tuple[str, Mapping[str, Any]]]) -> SlotState:
    """Records of other kinds that had no log either, as many as find room: what links and clock have told before the exec."""
    room = CARRIED_LIMIT_BYTES
    for kind, fields in list(records)[: UNRECORDED_LIMIT - len(state.unrecorded)]:
        cut = {name: value[:REASON_LIMIT] if isinstance(value, str) else value for name, value in fields.items()}
        room -= len(msgspec.json.encode(cut))
        if room < 0:
            break
        state = _record(state, kind, cut)
    return state


def recorded(state: SlotState, count: int) -> SlotState:
    """The oldest `count` are in the log."""
    return structs.replace(state, unrecorded=state.unrecorded[count:])


def _record(state: SlotState, kind: str, fields: dict[str, Any]) -> SlotState:
    made = (*state.unrecorded, Unrecorded(kind=kind, fields=fields))
    return structs.replace(state, unrecorded=made[-UNRECORDED_LIMIT:])


def _with(state: SlotState, name: SlotName, slot: Slot | None) -> SlotState:
    return structs.replace(state, a=slot) if name == "a" else structs.replace(state, b=slot)


def _there(state: SlotState, name: SlotName) -> Slot:
    slot = state.slot(name)
    if slot is None:
        raise LookupError(f"slot {name} is empty")
    return slot
