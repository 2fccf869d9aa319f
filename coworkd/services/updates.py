"""Updates: what is on the update disk, which slot runs, whether it may stay, and the way back.

Every start begins with the image's own coworkd, slot `0`. It asks `choose` once the session disk is there: what the update disk holds is
brought into the free slot if it is newer; the chosen slot is looked at, all of it, every time; and its start is written down before it
is made. Who runs from a slot says `resume` instead. After `ready`, `serve` records what had no log yet, and commits the slot
when it was healthy for `commit_s`; one that is not for `GIVE_UP_S` is given up.

Rules
- Nothing here keeps coworkd from starting: what goes wrong is told as `degraded.update`, and the image's own version goes on.
- Without a key in the image there are no updates at all, and no slot is ever run.
- `update.apply` and `update.rollback` are in the audit log before anything is changed. What is done before there is a log is written
  down together with the change (`release.slots`), and recorded as soon as there is one.
- The worker never hears what is in a slot from a host: only from `state.json` and the disk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import trio
from msgspec import Struct, structs

from coworkd.model import calls_update as calls
from coworkd.model import update
from coworkd.model.errors import CoworkError, DiskFailed, InternalError, InvalidState, NotFound, Unavailable
from coworkd.model.ports import AuditPort, EventPort
from coworkd.release import slots
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.slots import Slot, SlotName, SlotState
from coworkd.services.updates_state import SlotStates
from coworkd.services.updates_worker import UpdatePort

LOOK_S = 1.0
GIVE_UP_S = 600.0
_log = logging.getLogger("coworkd.updater")


class UpdateFacts(Struct, frozen=True, kw_only=True):
    """What does not change while this coworkd runs."""

    slots_dir: str
    boot_id: str
    image_version: str
    version: str
    running: Literal["0", "a", "b"] = "0"
    trust: update.Trust | None = None
    """None: the image has no key."""
    label: str = update.DISK_LABEL
    device: str = ""
    mount_point: str = "/smol/bin"
    commit_s: float = 60.0


class SlotRun(Struct, frozen=True, kw_only=True):
    """A slot that was looked at and may be run."""

    slot: SlotName
    version: str
    contents: tuple[str, ...]
    directory: str


class Updates:
    """Implements `rpc.handlers.ports.UpdateApi`. `choose` or `resume`, then `attach`, then `serve`, then `leave`."""

    def __init__(
        self,
        facts: UpdateFacts,
        *,
        worker: UpdatePort,
        events: EventPort,
        on_state: Callable[[str | None], None],
        may_be_there: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_be_there` is a cheap look whether a disk is worth a worker, made in a thread."""
        self._facts = facts
        self._worker = worker
        self._events = events
        self._on_state = on_state
        self._may_be_there = may_be_there
        self._states = SlotStates(facts.slots_dir)
        self._audit: AuditPort | None = None
        self._healthy: Callable[[], str | None] = lambda: None
        self._restart: Callable[[str], None] = lambda reason: None
        self._busy = trio.Lock()
        self._disk: calls.UpdateDisk | None = None
        self._reason: str | None = None
        self._run: SlotRun | None = None

    # -- at the start -------------------------------------------------------------------------------------------

    async def choose(self) -> SlotRun | None:
        """What to run, written down as begun; None for the image's own. Never raises a `CoworkError`."""
        if self._facts.trust is None:
            self._reason = "the image has no key: updates are off"
            return None
        try:
            wrong = await self._states.load()
            if wrong:
                self._tell(f"what slots there were is not known any more: {wrong}")
            await self._settle()
            await self._look_quietly()
            self._run = await self._choose_slot(self._facts.trust)
        except CoworkError as error:
            self._tell(f"the image's own version runs: {error.message}")
        return self._run

    async def carry(self, records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Have the release that is begun record what this coworkd has no log for. Never raises a `CoworkError`."""
        try:
            await self._states.save(slots.carry(self._states.state, records))
        except CoworkError as error:
            _log.error("not recorded: %s", error.message)

    async def resume(self, run: SlotRun) -> None:
        """This coworkd runs from `run`; it was begun by slot `0`. Never raises a `CoworkError`."""
        self._run = run
        try:
            await self._states.load()
        except CoworkError as error:
            self._tell(error.message)
        _log.info("running %s from slot %s", run.version, run.slot)

    async def _settle(self) -> None:
        before = self._states.state
        state = slots.settle(before, boot_id=self._facts.boot_id)
        await self._states.save(state)
        for name in _names():
            slot, was = state.slot(name), before.slot(name)
            if slot is not None and was is not None and slot.status == "bad" != was.status:
                self._tell(f"{slot.version} in slot {name} is given up: {slot.reason}")
                self._publish("rolled_back", state.chosen, slot.version, slot.reason)

    async def _look_quietly(self) -> None:
        """Take what is new. A disk that cannot be read changes nothing of what is chosen."""
        if not await trio.to_thread.run_sync(self._may_be_there):
            return
        try:
            offer = await self._look()
            if offer is not None and self._wanted(offer, again=False):
                await self._stage(offer)
        except ReleaseRefused as refused:
            await self._refused_early(refused)
        except CoworkError as error:
            self._tell(f"the update disk was not taken: {error.message}")

    async def _refused_early(self, refused: ReleaseRefused) -> None:
        disk = self._disk
        version = disk.version if disk is not None and disk.version else ""
        state = slots.refuse(
            self._states.state, version=version, slot=self._states.state.chosen, reason=refused.message
        )
        self._told_refused(refused, version)
        await self._states.save(state)

    async def _choose_slot(self, trust: update.Trust) -> SlotRun | None:
        while (name := slots.candidate(self._states.state)) is not None:
            slot = self._states.state.slot(name)
            assert slot is not None
            ask = update.VerifySlot(
                id=1,
                trust=trust,
                slots=os.fsencode(self._facts.slots_dir),
                slot=name,
                version=slot.version,
                contents=slot.contents,
                sha256=slot.sha256,
            )
            answer = await self._worker.verify_slot(ask)
            if not answer.why:
                await self._states.save(slots.begin(self._states.state, name, boot_id=self._facts.boot_id))
                _log.info("%s in slot %s is as it was signed (%.3f s)", slot.version, name, answer.took_s)
                directory = os.path.join(self._facts.slots_dir, name)
                return SlotRun(slot=name, version=slot.version, contents=slot.contents, directory=directory)
            self._tell(f"{slot.version} in slot {name} is not run: {answer.reason}")
            await self._states.save(slots.spoil(self._states.state, name, answer.reason))
            self._publish("rolled_back", self._states.state.chosen, slot.version, answer.reason)
        return None

    # -- the disk -----------------------------------------------------------------------------------------------

    async def _look(self, slot: SlotName | None = None, sha256: str = "") -> update.DiskOffer | None:
        """What the disk offers; None for no disk. Raises `ReleaseRefused`, and as `UpdatePort`."""
        facts = self._facts
        assert facts.trust is not None
        ask = update.LookAtDisk(
            id=1,
            trust=facts.trust,
            slots=os.fsencode(facts.slots_dir),
            mount_point=os.fsencode(facts.mount_point),
            label=facts.label,
            device=os.fsencode(facts.device),
            slot=slot,
            sha256=sha256,
        )
        offer = await self._worker.look_at_disk(ask)
        if not offer.found:
            self._disk = None
            return None
        for line in offer.lines:
            _log.info("%s", line)
        version = offer.offered.version if offer.offered is not None else offer.version
        self._disk = calls.UpdateDisk(device=os.fsdecode(offer.device), version=version or None)
        if offer.offered is None:
            raise ReleaseRefused(offer.why or "unreadable", offer.reason)
        return offer

    def _wanted(self, offer: update.DiskOffer, *, again: bool) -> bool:
        """Whether it is new. Raises `ReleaseRefused`."""
        offered = _offered(offer)
        return slots.check_offer(self._states.state, offered.version, offered.sha256, again=again) is None

    async def _stage(self, offer: update.DiskOffer, *, recorded: bool = False) -> SlotName:
        """Bring it into the free slot and choose that. Raises `ReleaseRefused`, and as `UpdatePort`."""
        offered = _offered(offer)
        name = slots.free_slot(self._states.state)
        await self._states.save(slots.clear(self._states.state, name))
        await trio.to_thread.run_sync(_make_directory, self._facts.slots_dir)
        await self._look(name, offered.sha256)
        slot = Slot(version=offered.version, sha256=offered.sha256, contents=offered.contents)
        before = self._states.state
        state = slots.stage(before, name, slot)
        await self._states.save(structs.replace(state, unrecorded=before.unrecorded) if recorded else state)
        _log.info("%s is in slot %s, signed by %s", offered.version, name, offered.key)
        self._publish("applied", name, offered.version, None)
        return name

    def _told_refused(self, refused: ReleaseRefused, version: str) -> None:
        if self._disk is not None:
            self._disk = structs.replace(self._disk, why=refused.why, reason=refused.message)
        if refused.why == "not_newer":
            _log.info("no update: %s", refused.message)
            return
        self._tell(f"the update disk is refused: {refused.message}")
        self._publish("refused", self._states.state.chosen, version, refused.message)

    # -- while it runs ------------------------------------------------------------------------------------------

    def attach(self, audit: AuditPort, *, healthy: Callable[[], str | None], restart: Callable[[str], None]) -> None:
        """`healthy` says what is wrong, or None; `restart` ends this coworkd so that slot `0` chooses anew, and returns at once."""
        self._audit = audit
        self._healthy = healthy
        self._restart = restart

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """From `ready` on: record, then watch over a slot until it is committed or given up. Returns then."""
        task_status.started()
        try:
            await self._record_early()
            if self._run is not None:
                async with self._busy:
                    await self._states.save(slots.came_up(self._states.state))
                await self._watch_over(self._run)
        except CoworkError as error:
            self._tell(error.message)

    async def leave(self, *, begun: bool = False) -> None:
        """The end is wanted: nobody is to take it for a crash. `begun`: this is a release, of which the end may have come before
        `resume`. Never raises a `CoworkError`.
        """
        if self._run is None and not begun:
            return
        try:
            async with self._busy:
                if not self._states.loaded:
                    await self._states.load()
                await self._states.save(slots.leave(self._states.state))
        except CoworkError as error:
            _log.error("%s", error.message)

    async def _record_early(self) -> None:
        async with self._busy:  # verbs come meanwhile, and go on from the same state
            await self._record_waiting()

    async def _record_waiting(self) -> None:
        waiting = self._states.state.unrecorded
        for item in waiting:
            try:
                await self._recorder.record(item.kind, item.fields)
            except DiskFailed:
                raise
            except InternalError as error:  # of another version's kinds: told, and no reason to keep it for ever
                _log.error("not recorded: %s %s: %s", item.kind, item.fields, error.message)
        await self._states.save(slots.recorded(self._states.state, len(waiting)))

    async def _watch_over(self, run: SlotRun) -> None:
        began = trio.current_time()
        healthy_since: float | None = None
        while True:
            now, wrong = trio.current_time(), self._healthy()
            healthy_since = None if wrong is not None else now if healthy_since is None else healthy_since
            if healthy_since is not None and now - healthy_since >= self._facts.commit_s:
                await self._commit(run)
                return
            slot = self._states.state.slot(run.slot)
            if now - began >= GIVE_UP_S and slot is not None and slot.status != "committed":
                await self._give_up(
                    run, f"it was not healthy for {self._facts.commit_s:g} s within {GIVE_UP_S:g} s: {wrong}"
                )
                return
            await trio.sleep(LOOK_S)

    async def _commit(self, run: SlotRun) -> None:
        async with self._busy:
            slot = self._states.state.slot(run.slot)
            fresh = slot is not None and slot.status != "committed"
            if slot is not None and self._states.state.chosen == run.slot:
                await self._states.save(slots.commit(self._states.state, run.slot))
        await self._record_early()
        if fresh:
            _log.info("%s in slot %s is committed", run.version, run.slot)
            self._publish("committed", run.slot, run.version, None)
            self._tell(None)

    async def _give_up(self, run: SlotRun, reason: str) -> None:
        async with self._busy:
            await self._states.save(slots.spoil(self._states.state, run.slot, reason))
        await self._record_early()
        self._publish("rolled_back", self._states.state.chosen, run.version, reason)
        self._restart(f"{run.version} in slot {run.slot} is given up: {reason}")

    # -- verbs --------------------------------------------------------------------------------------------------

    async def status(self) -> calls.UpdateStatus:
        state, facts = self._states.state, self._facts
        held = ((name, state.slot(name)) for name in _names())
        return calls.UpdateStatus(
            enabled=facts.trust is not None,
            running="0" if self._run is None else self._run.slot,
            version=facts.version,
            image_version=facts.image_version,
            chosen=state.chosen,
            slots=tuple(_shown(name, slot) for name, slot in held if slot is not None),
            reason=self._reason,
            disk=self._disk,
            floor=state.floor or None,
        )

    async def apply(self, params: calls.UpdateApply) -> calls.UpdateApplied:
        """Raises `NotFound` without a disk, `InvalidState` for what is refused (`details.why`), `Unavailable`, `DiskFailed`."""
        self._refuse_disabled()
        async with self._busy:
            try:
                offer = await self._look()
                if offer is None:
                    raise NotFound(f"there is no update disk: none has the serial number or label {self._facts.label}")
                offered = _offered(offer)
                if not self._wanted(offer, again=params.again):
                    raise InvalidState(
                        f"{offered.version} is here already, in slot {self._states.state.chosen}", why="not_newer"
                    )
                name = slots.free_slot(self._states.state)
                fields = {"version": offered.version, "slot": name, "sha256": offered.sha256}
                await self._recorder.record("update.apply", fields)
                await self._stage(offer, recorded=True)
            except ReleaseRefused as refused:
                version = self._disk.version if self._disk is not None else None
                self._told_refused(refused, version or "")
                fields = {"version": version or "", "slot": self._states.state.chosen, "reason": refused.message}
                await self._recorder.record("update.refused", fields)
                raise InvalidState(f"the update disk is refused: {refused.message}", why=refused.why) from refused
        self._tell(None)
        if params.restart:
            self._restart(f"{offered.version} was put into slot {name}")
        return calls.UpdateApplied(slot=name, version=offered.version, sha256=offered.sha256, restarting=params.restart)

    async def rollback(self, params: calls.UpdateRollback) -> calls.UpdateRolledBack:
        """Raises `InvalidState` where there is nothing to go back to."""
        self._refuse_disabled()
        async with self._busy:
            before = self._states.state
            try:
                state = slots.roll_back(before, params.to, params.reason)
            except ReleaseRefused as refused:
                raise InvalidState(refused.message, why=refused.why) from refused
            version = self._version_of(state)
            fields = {"version": version, "slot": state.chosen, "reason": params.reason}
            await self._recorder.record("update.rollback", fields)
            await self._states.save(structs.replace(state, unrecorded=before.unrecorded))
        self._publish("rolled_back", state.chosen, version, params.reason)
        if params.restart:
            self._restart(f"back to {version} in slot {state.chosen}: {params.reason}")
        return calls.UpdateRolledBack(slot=state.chosen, version=version, restarting=params.restart)

    def _version_of(self, state: SlotState) -> str:
        slot = None if state.chosen == "0" else state.slot(state.chosen)
        return self._facts.image_version if slot is None else slot.version

    def _refuse_disabled(self) -> None:
        if self._facts.trust is None:
            raise InvalidState("updates are off: the image has no key to verify them by; build one with --update-key")
        if not self._states.loaded:  # what would be written now would be all there is
            raise Unavailable("the slots were not read, the session disk was away or failed; see degraded in hello")

    @property
    def _recorder(self) -> AuditPort:
        if self._audit is None:
            raise InvalidState("coworkd is still coming up")
        return self._audit

    def _tell(self, reason: str | None) -> None:
        if reason is not None:
            _log.warning("%s", reason)
        self._reason = reason
        self._on_state(reason)

    def _publish(self, action: str, slot: str, version: str, reason: str | None) -> None:
        self._events.publish(f"update.{action}", {"slot": slot, "version": version, "reason": reason})


def _names() -> tuple[SlotName, SlotName]:
    return ("a", "b")


def _offered(offer: update.DiskOffer) -> update.Offered:
    assert offer.offered is not None
    return offer.offered


def _shown(name: SlotName, slot: Slot) -> calls.UpdateSlot:
    return calls.UpdateSlot(
        slot=name,
        version=slot.version,
        sha256=slot.sha256,
        contents=slot.contents,
        status=slot.status,
        failures=slot.failures,
        reason=slot.reason or None,
    )


def _make_directory(path: str) -> None:
    os.makedirs(path, 0o700, exist_ok=True)
