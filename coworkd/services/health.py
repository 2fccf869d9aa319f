"""Health: how far coming up got, what does not work, and how much there is of everything.

`degraded` maps a part to the reason why it does not work; `hello` tells it to every host, so being ready with problems
is said, never silent. What is counted elsewhere is asked for at the moment of the call, through `Sources`, so no number
here can be stale. Nothing here starts a task or keeps a descriptor.

Not here: the loop's pulse and what is told without the loop (`health_pulse`, `health_thread`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from coworkd import __version__
from coworkd.model.calls import (
    DoctorAnswer,
    Finding,
    HelloAnswer,
    Info,
    Report,
    Reported,
    Stage,
    Stats,
)
from coworkd.model.errors import CoworkError
from coworkd.model.restart import Restarted
from coworkd.services.health_pulse import Pulse
from coworkd.system.process_use import ProcessUse, read_use

PROTOCOL = 1
WARM_COUNTED_S = 5.0
"""How often the launcher is asked for its counts, for those who do not wait for it."""


@dataclass(frozen=True)
class Sources:
    """What health asks others for; each is cheap, synchronous and called in trio's thread, but `doctor` in a worker's."""

    endpoints: Callable[[], tuple[str, ...]]
    profiles: Callable[[], tuple[str, ...]]
    bubblewrap: Callable[[], str]
    """Its version as it tells it; empty where there is none."""
    launcher_pid: Callable[[], int | None]
    """None while the launcher is away."""
    links: Callable[[], int]
    sessions: Callable[[], int]
    processes: Callable[[], dict[str, int]]
    """State → count."""
    started_total: Callable[[], int]
    start_errors_total: Callable[[], int]
    spool_bytes: Callable[[], int]
    audit_records: Callable[[], int]
    audit_syncs: Callable[[], tuple[int, float, float]]
    """How often records were made durable, what that took in all, and what the slowest took."""
    egress_pid: Callable[[], int | None]
    egress: Callable[[], dict[str, int]]
    output_bytes: Callable[[], int]
    spool_memory: Callable[[], tuple[int, int]]
    """What spools in memory keep, and their bound."""
    streams: Callable[[], int]
    requests_total: Callable[[], int]
    work_total: Callable[[], int]
    """Of the requests those that wanted something of the guest."""
    events: Callable[[], tuple[int, int]]
    """How many were published, and how many were missed."""
    warm: Callable[[], Awaitable[dict[str, int]]]
    """The launcher's to count; may raise `Unavailable`, and may take long."""
    pressure: Callable[[], dict[str, float]]
    doctor: Callable[[], tuple[Finding, ...]]
    report: Callable[[Report], Reported]
    """In a worker's thread, as `doctor`."""


class Health:
    """Made first, so that stages can be timed; `attach` gives it the sources once they exist."""

    def __init__(
        self,
        *,
        boot_id: str,
        state_dir: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        on_change: Callable[[dict[str, str]], None] = lambda degraded: None,
    ) -> None:
        """`on_change` is given all of `degraded` whenever it has changed."""
        self._on_change = on_change
        self._boot_id = boot_id
        self._state_dir = state_dir
        self._clock = clock
        self._monotonic = monotonic
        self._since = monotonic()
        self._stages: list[Stage] = []
        self._doing: list[str] = []
        self._sources: Sources | None = None
        self._began: list[float] = []
        self._warm: dict[str, int] = {}
        self.pulse = Pulse(monotonic)
        self.ready_at: float | None = None
        """By CLOCK_MONOTONIC; None while coming up, and then `hello` says `starting`."""
        self.degraded: dict[str, str] = {}
        self.restarted: Restarted | None = None
        """What came over a restart, where this coworkd is not the first with its launcher."""

    def attach(self, sources: Sources) -> None:
        """Say whom to ask. Needed before `info`, `stats` and `doctor`."""
        self._sources = sources

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one step of coming up. An error inside makes the part degraded and goes on to the caller, who decides."""
        started_at, began = self._clock(), self._monotonic()
        error: str | None = None
        self._doing.append(name)
        try:
            yield
        except Exception as problem:
            error = str(problem) or type(problem).__name__
            self.degrade(name, error)
            raise
        finally:
            self._doing.remove(name)
            took_s = self._monotonic() - began
            self._began.append(began)
            self._stages.append(Stage(name=name, started_at=started_at, took_s=took_s, error=error))

    @property
    def doing(self) -> str:
        """The stages that coming up is at."""
        return ", ".join(self._doing) or "the first step"

    @property
    def ready(self) -> bool:
        """Whether all is there that comes up."""
        return self.ready_at is not None

    @property
    def made_at(self) -> float:
        """When coming up began, by CLOCK_MONOTONIC."""
        return self._since

    @property
    def timed(self) -> tuple[tuple[Stage, float], ...]:
        """The stages that are over, in the order they ended, each with its beginning by CLOCK_MONOTONIC."""
        return tuple(zip(self._stages, self._began, strict=True))

    def all_here(self) -> None:
        """Everything has come up, or is degraded."""
        self.ready_at = self._monotonic()

    def degrade(self, part: str, reason: str | None) -> None:
        """Tell that `part` does not work, and why; None when it works again."""
        if reason == self.degraded.get(part):
            return
        if reason is None:
            self.degraded.pop(part)
        else:
            self.degraded[part] = reason
        self._on_change(dict(self.degraded))

    def hello_answer(self, features: tuple[str, ...], protocol: int = PROTOCOL) -> HelloAnswer:
        """What `hello` tells: `protocol` is the version agreed on."""
        starting = {} if self.ready else {"starting": self.doing}
        return HelloAnswer(
            protocol=protocol,
            version=__version__,
            boot_id=self._boot_id,
            features=features,
            stages=tuple(self._stages),
            degraded={**self.degraded, **starting},
            restarted=self.restarted,
        )

    async def info(self) -> Info:
        """What this coworkd is and where. `launcher_pid` is 0 while the launcher is away."""
        ask = self._asked
        kernel = os.uname()
        return Info(
            version=__version__,
            protocol=PROTOCOL,
            boot_id=self._boot_id,
            kernel=kernel.release,
            machine=kernel.machine,
            bubblewrap=ask.bubblewrap(),
            pid=os.getpid(),
            launcher_pid=ask.launcher_pid() or 0,
            state_dir=self._state_dir,
            profiles=ask.profiles(),
            endpoints=ask.endpoints(),
        )

    async def stats(self) -> Stats:
        """Counts of this moment."""
        await self._count_warm()
        return self.count()

    def count(self) -> Stats:
        """The same without giving way, what the launcher counts being a little older; a millisecond or two.

        A program that is away is in none of the maps.
        """
        ask = self._asked
        used = self._programs()
        events_total, events_missed_total = ask.events()
        audit_syncs_total, audit_sync_s_total, audit_sync_max_s = ask.audit_syncs()
        return Stats(
            uptime_s=self._monotonic() - self._since,
            links=ask.links(),
            sessions=ask.sessions(),
            processes=ask.processes(),
            started_total=ask.started_total(),
            start_errors_total=ask.start_errors_total(),
            spool_bytes=ask.spool_bytes(),
            rss_bytes={name: use.rss_bytes for name, use in used.items()},
            pss_bytes={name: use.pss_bytes for name, use in used.items() if use.pss_bytes is not None},
            fds={name: use.fds for name, use in used.items() if use.fds is not None},
            threads={name: use.threads for name, use in used.items() if use.threads is not None},
            audit_records=ask.audit_records(),
            audit_syncs_total=audit_syncs_total,
            audit_sync_s_total=audit_sync_s_total,
            audit_sync_max_s=audit_sync_max_s,
            output_bytes=ask.output_bytes(),
            spool_memory_bytes=ask.spool_memory()[0],
            spool_memory_limit_bytes=ask.spool_memory()[1],
            streams=ask.streams(),
            requests_total=ask.requests_total(),
            events_total=events_total,
            events_missed_total=events_missed_total,
            egress=ask.egress(),
            warm=self._warm,
            pressure=ask.pressure(),
            loop_lag_s=self.pulse.lag_s,
            idle_for_s=self.pulse.idle_for_s,
        )

    async def beat(self) -> None:
        """Keep the pulse, until cancelled: the loop's own task, which can only run where the loop turns, and waits for nobody."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_warm_counted)
            await self.pulse.serve(self._activity, lambda: None if self._sources is None else self.count())

    async def _keep_warm_counted(self) -> None:
        while True:
            await trio.sleep(WARM_COUNTED_S)
            if self._sources is not None:
                await self._count_warm()

    async def _count_warm(self) -> None:
        try:
            self._warm = await self._asked.warm()
        except CoworkError:  # the launcher is away, which `degraded` tells
            self._warm = {}

    def _activity(self) -> tuple[int, int] | None:
        """What changes when somebody asks for something or a command puts something out; None before `attach`."""
        return None if self._sources is None else (self._sources.work_total(), self._sources.output_bytes())

    def _programs(self) -> dict[str, ProcessUse]:
        pids = {"coworkd": os.getpid(), "launcher": self._asked.launcher_pid(), "egress": self._asked.egress_pid()}
        used = {name: read_use(pid) for name, pid in pids.items() if pid is not None}
        return {name: use for name, use in used.items() if use is not None}

    async def doctor(self) -> DoctorAnswer:
        """Check every requirement; in a worker thread, since some checks run programs. Takes up to a few seconds."""
        return DoctorAnswer(findings=await trio.to_thread.run_sync(self._asked.doctor))

    async def report(self, params: Report) -> Reported:
        """What this machine tells for a report of an error, redacted; in a worker thread, up to half a minute."""
        return await trio.to_thread.run_sync(self._asked.report, params)

    @property
    def _asked(self) -> Sources:
        if self._sources is None:
            raise RuntimeError("Health.attach was not called")
        return self._sources
