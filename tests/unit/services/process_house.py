"""A process service over fakes, ready to be driven: what the tests of its rooms share."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import trio
import trio.testing

from coworkd.config import FinishedConfig, SpoolConfig
from coworkd.model.calls import ProcessStart, ProcessStarted
from coworkd.model.errors import CoworkError, DiskFailed
from coworkd.model.event import Event
from coworkd.model.launch import Spawn
from coworkd.model.limits import Rlimits
from coworkd.model.names import OsBytes
from coworkd.model.policy import (
    EffectivePolicy,
    EgressPolicy,
    FoldersPolicy,
    LimitsPolicy,
    LimitsRequest,
    Profile,
    SandboxPolicy,
    SeccompProgram,
)
from coworkd.model.ports import Frames
from coworkd.model.process import ProcessSpec, StreamName
from coworkd.model.session import SessionView
from coworkd.services.process_limits import ProcessLimits
from coworkd.services.processes import Processes
from tests.unit.services.fake_launcher import FakeCommand, FakeLauncher

PAGE = 4096
NOW = 1000.0


class Output(NamedTuple):
    """One decoded `process.output`."""

    stream: str
    offset: int
    data: bytes
    eof: bool


def encode_output(process: str, stream: StreamName, offset: int, data: bytes, eof: bool) -> list[bytes | memoryview]:
    return [json.dumps([process, stream, offset, eof]).encode(), data]


def encode_notification(method: str, params: Mapping[str, Any]) -> list[bytes | memoryview]:
    return [json.dumps([method, params], default=bytes.decode).encode()]


def decode(frame: list[bytes | memoryview]) -> Output | dict[str, Any]:
    head = json.loads(bytes(frame[0]))
    if head[0].startswith("process."):
        params: dict[str, Any] = head[1]
        return params
    return Output(head[1], head[2], bytes(frame[1]), head[3])


class FakeLink:
    """Implements `ports.LinkPort`; `pull` is its writer."""

    def __init__(self, name: str = "link") -> None:
        self._name = name
        self._on_close: list[Callable[[], None]] = []
        self.sources: list[Frames] = []
        self.woken = 0
        self._silent: set[Frames] = set()
        self.finished: CoworkError | None = None

    @property
    def name(self) -> str:
        return self._name

    def notify(self, method: str, params: Mapping[str, Any], /) -> None:
        raise AssertionError("an exit is a frame of its source")

    def attach(self, source: Frames, /) -> None:
        self.sources.append(source)
        self._silent.discard(source)

    def detach(self, source: Frames, /) -> None:
        if source in self.sources:
            self.sources.remove(source)
            source.detached()

    def wake(self, source: Frames, /) -> None:
        self.woken += 1
        self._silent.discard(source)

    def on_close(self, call: Callable[[], None], /) -> None:
        self._on_close.append(call)

    def finish(self, error: CoworkError, /) -> None:
        self.finished = error

    @property
    def listeners(self) -> int:
        return len(self._on_close)

    def ask(self, source: Frames, limit_bytes: int) -> list[bytes | memoryview] | None:
        """Its next frame; one that had none is not asked again until it wakes, as a link's writer does not."""
        frame = None if source in self._silent else source.next_frame(limit_bytes)
        if not frame:
            self._silent.add(source)
        return frame

    def pull(self, frames: int = 1 << 20, limit_bytes: int = 65536) -> list[Any]:
        """At most `frames` frames, decoded, until no source has more."""
        got: list[Any] = []
        while len(got) < frames:
            for source in list(self.sources):
                frame = self.ask(source, limit_bytes)
                if frame is not None:
                    got.append(decode(frame))
                    break
            else:
                break
        return got

    def pull_bytes(self, stream: str = "stdout") -> bytes:
        """The data of every frame there is now, checked to follow without gap."""
        frames = [frame for frame in self.pull() if isinstance(frame, Output) and frame.stream == stream]
        for earlier, later in itertools.pairwise(frames):
            assert later.offset == earlier.offset + len(earlier.data)
        return b"".join(frame.data for frame in frames)

    def close(self) -> None:
        for source in list(self.sources):
            self.detach(source)
        while self._on_close:
            self._on_close.pop()()


class FakeSessions:
    """Implements `ports.SessionDirectory`."""

    def __init__(self) -> None:
        self.error: CoworkError | None = None
        self.limits = LimitsRequest()
        self.turn: trio.Event | None = None
        """Whoever opens a session waits for it."""

    async def open_for_command(self, name: str, /) -> SessionView:
        return await self.open(name)

    async def open(self, name: str, /) -> SessionView:
        await trio.lowlevel.checkpoint()
        if self.turn is not None:
            await self.turn.wait()
        if self.error is not None:
            raise self.error
        return SessionView(
            name=name,
            uid=1001,
            gid=1001,
            home=f"/sessions/{name}".encode(),
            profile="default",
            limits=self.limits,
            env={},
            folders=(),
        )


class FakePolicies:
    """Implements `ports.PolicyPort`."""

    def __init__(self) -> None:
        self.error: CoworkError | None = None
        self.timeout_s = 0.0
        self.asked: list[tuple[str | None, LimitsRequest]] = []

    async def effective(self, profile: str | None, limits: LimitsRequest, /) -> EffectivePolicy:
        self.asked.append((profile, limits))
        if self.error is not None:
            raise self.error
        program = SeccompProgram(sha256="0" * 64, bpf=b"", source="test")
        return EffectivePolicy(
            profile=Profile(
                name=profile or "none",
                sandbox=SandboxPolicy(base="dev", seccomp="default", warm=0, ask_delete=False),
                limits=LimitsPolicy(
                    memory_max_bytes=1,
                    memory_high_bytes=1,
                    swap_max_bytes=0,
                    pids_max=1,
                    cpu_max=1.0,
                    cpu_weight=100,
                    io_weight=100,
                    tmp_max_bytes=1,
                    disk_max_bytes=1,
                    nofile=1,
                    fsize_max_bytes=0,
                    cpu_time_s=0,
                    core_max_bytes=0,
                    timeout_s=self.timeout_s,
                ),
                folders=FoldersPolicy(modes=("ro",), allow_sockets=False),
                egress=EgressPolicy(settings="default", upstream="direct", allow_max_s=0.0),
            ),
            base_filter=program,
            admin_filter=program,
            narrowed=("from the policy",),
        )


class FakeRecording:
    """Implements `ports.Recording`: in the log once somebody waits for it."""

    def __init__(self, audit: FakeAudit, kind: str, fields: dict[str, Any], then: Callable[[], None] | None) -> None:
        self._audit = audit
        self._then = then
        self._kind = kind
        self._fields = fields

    async def durable(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._kind in self._audit.gates:
            await self._audit.gates[self._kind].wait()
        if self._kind in self._audit.full:
            raise DiskFailed("no space left on the device")
        self._audit.records.append((self._kind, self._fields))
        if self._then is not None:
            self._then()


class FakeAudit:
    """Implements `ports.EarlyAudit`; `full` is a disk without room, `trace` is shared with the launcher's fake."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.begun: list[str] = []
        self.full: set[str] = set()
        self.gates: dict[str, trio.Event] = {}
        """Nothing of that kind is durable before it."""

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        await self.record_nowait(kind, fields).durable()

    def record_nowait(
        self, kind: str, fields: Mapping[str, Any], /, *, then: Callable[[], None] | None = None
    ) -> FakeRecording:
        self.begun.append(kind)
        return FakeRecording(self, kind, dict(fields), then)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.records]

    def fields(self, kind: str) -> dict[str, Any]:
        (found,) = (fields for each, fields in self.records if each == kind)
        return found


class FakeEvents:
    """Implements `ports.EventPort`."""

    def __init__(self) -> None:
        self.published: list[Event] = []

    def publish(self, name: str, params: Mapping[str, Any], /) -> Event:
        event = Event(seq=len(self.published) + 1, at=NOW, name=name, params=dict(params))
        self.published.append(event)
        return event


def compose(spec: ProcessSpec, session: SessionView, policy: EffectivePolicy) -> Spawn:
    return Spawn(
        id=0,
        process=spec.process,
        session=session.name,
        uid=session.uid,
        gid=session.gid,
        argv=spec.argv,
        bwrap_args=(),
        filters=(policy.base_filter.sha256, policy.admin_filter.sha256),
        stdin=spec.stdin,
        tty=spec.tty,
        rlimits=Rlimits(nofile=1, nproc=1),
    )


class House:
    """The service and everything around it."""

    def __init__(self, limits: ProcessLimits) -> None:
        self.launcher = FakeLauncher()
        self.sessions = FakeSessions()
        self.policies = FakePolicies()
        self.audit = FakeAudit()
        self.events = FakeEvents()
        self.link = FakeLink()
        self.limits = limits
        self.compose: Callable[[ProcessSpec, SessionView, EffectivePolicy], Spawn] = compose
        self.processes = self.make()

    def make(self) -> Processes:
        return Processes(
            launcher=self.launcher,
            sessions=self.sessions,
            policies=self.policies,
            audit=self.audit,
            events=self.events,
            compose=lambda spec, session, policy: self.compose(spec, session, policy),
            encode_output=encode_output,
            encode_notification=encode_notification,
            limits=self.limits,
            clock=lambda: NOW,
            monotonic=trio.current_time,
        )

    async def start(self, **fields: Any) -> ProcessStarted:
        """`process.start` of `cat` in session `work`, attached to `link`."""
        params = ProcessStart(**{"session": "work", "argv": [OsBytes(b"cat")], "id": "one", **fields})
        return await self.processes.start(params, self.link)

    @property
    def command(self) -> FakeCommand:
        return self.launcher.command

    async def open(self, nursery: trio.Nursery) -> None:
        """Serve in `nursery` until `close` or `restart`."""
        self.nursery = nursery
        self._scope = trio.CancelScope()
        self._closed = trio.Event()
        await nursery.start(self._serve)

    async def _serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._scope:
            await self.processes.serve(task_status=task_status)
        self._closed.set()

    async def close(self) -> None:
        self._scope.cancel()
        await self._closed.wait()

    async def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """The supervisor stops, `meanwhile` happens, and a new one takes over what the launcher kept."""
        await self.close()
        meanwhile()
        self.launcher.change_supervisor()
        self.link = FakeLink("after")
        self.processes = self.make()
        await self.open(self.nursery)


@contextlib.asynccontextmanager
async def open_house(
    *,
    stream_bytes: int = 1024 * 1024,
    total_bytes: int = 256 * 1024 * 1024,
    running: int = 512,
    finished: FinishedConfig | None = None,
) -> AsyncIterator[House]:
    """A house whose service is being served; no descriptor may be left of it."""
    before = open_fds()
    house = House(
        ProcessLimits(
            running=running,
            spool=SpoolConfig(stream_bytes=stream_bytes, total_bytes=total_bytes),
            finished=finished or FinishedConfig(),
        )
    )
    async with trio.open_nursery() as nursery:
        await house.open(nursery)
        yield house
        await house.close()
    house.launcher.close()
    assert open_fds() == before


def in_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on a clock that stands still but for `jump`."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        trio.run(functools.partial(test, **fixtures), clock=trio.testing.MockClock())

    return run


def jump(seconds: float) -> None:
    """Let time pass at once."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def settle() -> None:
    """Let everything that can happen now happen; pipes included."""
    await trio.testing.wait_all_tasks_blocked(0.005)


async def settle_threads() -> None:
    """As `settle`, with what threads do for tasks. None of them may be held up."""
    await settle()
    while trio.testing.active_thread_count():
        await trio.testing.wait_all_threads_completed()
        await settle()


def open_fds() -> set[tuple[str, str]]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return {(fd, what) for fd, what in found if not what.startswith("/proc/")}
