"""The host's link to coworkd: made again for ever, and what is learned on it told to the machine.

    dial ─ hello ─┬ pings: alive, its clock, ready or not ─▶ GuestNews
                  ├ logs, from where the last link stopped ─▶ coworkd.log
                  └ events ─▶ GuestNews

Rules
- However late a guest is, it is waited for; why it does not answer yet is in `waiting_for`, and no line is written for it.
- Hung is a guest that was there and has answered nothing for `hung_s`, on links that stand and on new ones. It is told, and dialled on;
  whoever listens decides what is done about it.
- The guest's clock is set by `sync_clock`: on each link, when this host has slept, and when pings show it wrong.
- What a guest sends is bounded: its log in size, its events to the `EVENT_NAMES` that a machine has a use for.
- Nothing here ends because of what a guest does. Cancelling `run` closes the link; the guest does not mind.

Not here: starting, stopping and restarting machines (`machine`), and whatever a user asks of coworkd.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

import trio
from msgspec import structs

from coworkd.client import aio
from coworkd.client.aio import AsyncClient
from coworkd.client.aio_process import AsyncSubscription
from coworkd.model.calls import HelloAnswer
from coworkd.model.errors import CoworkError, Unavailable
from host_stub.clock import JUMP_S, JumpWatch
from host_stub.guest_log import LogFollower
from host_stub.logs import BoundedLog
from host_stub.words import GuestNews

STARTING = "starting"
"""The part of `degraded` that says what is still coming up."""
EVENT_NAMES = frozenset(
    {"ready", "health", "network.status", "reachability", "storage.state", "storage.pressure", "memory.oom"}
    | {"clock.stepped", "clock.slept", "share.state"}
    | {"update.applied", "update.committed", "update.rolled_back", "update.refused"}
)
KEEPALIVE_S = 10.0
"""Pings come far more often; a guest that hears nothing for three times as long lets this link go."""
_TELL_DEGRADED = frozenset({"ready", "health"})
"""Events that say in `degraded` what does not work now."""

REASON_CHARACTERS = 500
"""So much is kept of what a guest says why it will not have us."""

Tell = Callable[[GuestNews], None]
Dial = Callable[[float], Awaitable[AsyncClient]]
Look = Callable[[], Awaitable[str]]


class Timing(NamedTuple):
    """How long is waited for what."""

    first_retry_s: float = 0.1
    retry_s: float = 1.0
    dial_s: float = 10.0
    starting_s: float = 0.3
    """How often a guest that comes up is asked whether it is up."""
    ping_s: float = 2.0
    answer_s: float = 5.0
    hung_s: float = 20.0
    look_s: float = 600.0
    """How often `degraded` is asked for although no event told a change."""
    logs_s: float = 1.0
    sync_again_s: float = 10.0
    """Between two times that the guest's clock is set because pings show it wrong."""
    refused_again_s: float = 600.0
    """The same where the guest would not have it: a clock is not set back."""


TIMING = Timing()


class GuestLink:
    """Implements `words.Guest` over a URI of the client's, such as `hybrid:///BUNDLE/run/vsock.sock?port=5005`."""

    def __init__(
        self,
        uri: str,
        *,
        log: BoundedLog | None = None,
        token: str | None = None,
        timing: Timing = TIMING,
        dial: Dial | None = None,
        wall: Callable[[], float] = time.time,
        jumps: JumpWatch | None = None,
        look: Look | None = None,
    ) -> None:
        """`log` is written here and stays the caller's to close; without one the guest's log is not followed. `look` says in a sentence,
        and soon, what hangs in a guest that does.
        """
        self.waiting_for: str | None = "the guest has not answered yet"
        """Why there is no link, or None while there is one."""
        self._timing = timing
        self._dial = dial or (lambda timeout_s: _connect(uri, token, timeout_s))
        self._wall = wall
        self._jumps = jumps or JumpWatch()
        self._look_inside = look
        self._follower = None if log is None else LogFollower(log)
        self._client: AsyncClient | None = None
        self._answered_at: float | None = None
        """On trio's clock: when the guest last answered anything."""
        self._hung = False
        self._degraded: dict[str, str] = {}
        self._ready = False
        self._look = trio.Event()
        self._sync = True
        """Whether the guest is to be told the time, whatever pings show."""

    async def run(self, tell: Tell, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `words.Guest.run`."""
        task_status.started()
        while True:
            async with await self._make_link(tell) as client:
                self._client, self.waiting_for = client, None
                try:
                    reason = await self._live(client, tell)
                finally:
                    self._client = None
                self.waiting_for = reason
            tell(GuestNews(kind="lost", message=reason))

    async def shutdown(self, *, budget_s: float, reason: str) -> str | None:
        """See `words.Guest.shutdown`."""
        if self._client is None:
            return f"there is no link to the guest: {self.waiting_for}"
        params = {"power_off": True, "budget_s": budget_s, "reason": reason}
        try:
            await self._client.call("shutdown", params, timeout_s=self._timing.answer_s)
        except CoworkError as error:
            return f"the guest did not take shutdown: {error.message}"
        return None

    # -- making it

    async def _make_link(self, tell: Tell) -> AsyncClient:
        pause_s = self._timing.first_retry_s
        while True:
            try:
                client = await self._dial(self._timing.dial_s)
            except CoworkError as error:
                self.waiting_for = error.message[:REASON_CHARACTERS]
                await self._judge_silence(tell)
            else:
                self._greeted(client.hello, tell)
                return client
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, self._timing.retry_s)

    def _greeted(self, hello: HelloAnswer, tell: Tell) -> None:
        self._answered(tell)
        self._degraded, self._ready = dict(hello.degraded), STARTING not in hello.degraded
        stages = {stage.name: round(stage.took_s, 4) for stage in hello.stages}
        tell(_news("connected", hello, details={"stages": stages}))
        if self._ready:
            tell(_news("ready", hello))

    # -- living on it

    async def _live(self, client: AsyncClient, tell: Tell) -> str:
        """Until the link breaks; returns why it did."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, client, tell)
            nursery.start_soon(self._keep_looking, client, tell)
            nursery.start_soon(self._hear_events, client, tell)
            if self._follower is not None:
                nursery.start_soon(self._follower.follow, client, self._timing.logs_s)
            reason = (await client.wait_broken()).message[:REASON_CHARACTERS]
            nursery.cancel_scope.cancel()
        return reason

    async def _watch(self, client: AsyncClient, tell: Tell) -> None:
        """Ping, compare clocks, and end a link on which nothing comes any more."""
        self._sync, next_sync = True, 0.0
        while client.broken is None:
            jump = self._jumps.look()
            if jump is not None:
                tell(GuestNews(kind="slept", message=f"this host slept or its clock was set: {jump:+.1f} s"))
                self._sync = True
            offset_s = await self._ping(client, tell)
            wrong = offset_s is not None and abs(offset_s) > JUMP_S and trio.current_time() >= next_sync
            if offset_s is not None and (self._sync or wrong):
                self._sync = False
                next_sync = trio.current_time() + await self._sync_clock(client, tell)
            if self._hung:
                await client.aclose()
            await trio.sleep(self._timing.ping_s)

    async def _ping(self, client: AsyncClient, tell: Tell) -> float | None:
        """How far the guest's clock is ahead of ours, at most half the round trip wrong; None where it did not answer."""
        before, started = self._wall(), trio.current_time()
        try:
            pong = await client.call("ping", timeout_s=self._timing.answer_s)
        except CoworkError:
            await self._judge_silence(tell)
            return None
        self._answered(tell)
        theirs = pong.get("time")
        if not isinstance(theirs, float | int) or isinstance(theirs, bool):
            return None
        round_trip_s = trio.current_time() - started
        offset_s = theirs - (before + round_trip_s / 2)
        return offset_s if abs(offset_s) > round_trip_s / 2 else 0.0

    async def _sync_clock(self, client: AsyncClient, tell: Tell) -> float:
        """Tell the guest the time; after how many seconds it is worth another try, where it is wrong still."""
        try:
            answer = await client.call("sync_clock", {"time": self._wall()}, timeout_s=self._timing.answer_s)
        except CoworkError:
            return self._timing.ping_s
        told = {name: value for name, value in answer.items() if isinstance(value, float | int | str)}
        tell(GuestNews(kind="event", message="clock.synced", details=told))
        return self._timing.refused_again_s if told.get("reason") else self._timing.sync_again_s

    async def _keep_looking(self, client: AsyncClient, tell: Tell) -> None:
        """Ask for `degraded` again: once events are heard, for one may have come in between, and now and then.

        `hello` is answered once a link, so a link of its own is made for it, which the guest records: not often.
        """
        while True:
            self._look = trio.Event()
            with trio.move_on_after(self._timing.look_s):
                await self._look.wait()
            try:
                async with await self._dial(self._timing.answer_s) as second:
                    hello = second.hello
            except CoworkError:
                continue
            if hello.boot_id != client.hello.boot_id:
                await client.aclose()  # another guest is behind the same socket by now
                return
            self._judge_degraded(hello, hello.degraded, tell)

    def _judge_degraded(self, hello: HelloAnswer, degraded: Mapping[str, str], tell: Tell) -> None:
        ready, before = STARTING not in degraded, (self._ready, self._degraded)
        self._ready, self._degraded = ready, dict(degraded)
        if ready and before != (self._ready, self._degraded):
            tell(_news("ready", structs.replace(hello, degraded=dict(degraded))))

    async def _hear_events(self, client: AsyncClient, tell: Tell) -> None:
        try:
            subscription = await _subscribe(client, self._timing.starting_s)
            self._look.set()
            async for event in subscription:
                if event.name in _TELL_DEGRADED and (self._ready or event.name == "ready"):
                    self._judge_degraded(client.hello, _read_degraded(event.params), tell)
                if event.name == "clock.slept":
                    self._sync = True
                if event.name in EVENT_NAMES:
                    tell(GuestNews(kind="event", message=event.name, details=dict(event.params)))
        except CoworkError:  # of a broken link, which `_live` sees as well
            return

    # -- silence

    def _answered(self, tell: Tell) -> None:
        self._answered_at = trio.current_time()
        if self._hung:
            self._hung = False
            tell(GuestNews(kind="answering", message="the guest answers again"))

    async def _judge_silence(self, tell: Tell) -> None:
        if self._answered_at is None or self._hung:
            return
        silent_s = trio.current_time() - self._answered_at
        if silent_s >= self._timing.hung_s:
            self._hung = True
            where = "" if self._look_inside is None else f"; {await self._look_inside()}"[:REASON_CHARACTERS]
            tell(GuestNews(kind="hung", message=f"the guest has answered nothing for {silent_s:.0f} s{where}"))


def _news(kind: Literal["connected", "ready"], hello: HelloAnswer, details: dict[str, Any] | None = None) -> GuestNews:
    degraded = dict(hello.degraded)
    return GuestNews(kind=kind, boot_id=hello.boot_id, version=hello.version, degraded=degraded, details=details or {})


def _read_degraded(params: Mapping[str, Any]) -> dict[str, str]:
    found = params.get("degraded")
    return {str(part): str(why) for part, why in found.items()} if isinstance(found, dict) else {}


async def _subscribe(client: AsyncClient, pause_s: float) -> AsyncSubscription:
    """A guest that is coming up refuses most calls until it is up."""
    while True:
        try:
            return await client.events()
        except Unavailable:
            if client.broken is not None:
                raise
        await trio.sleep(pause_s)


async def _connect(uri: str, token: str | None, timeout_s: float) -> AsyncClient:
    return await aio.connect(uri, token=token, client_name="cowork-vm", timeout_s=timeout_s, keepalive_s=KEEPALIVE_S)
