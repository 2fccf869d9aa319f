"""A session service over fakes and a temporary disk: what the tests of its rooms share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model.egress import Allowance, EgressSettings, SessionEgress
from coworkd.model.errors import CoworkError, InvalidParams, Unavailable
from coworkd.model.launch import OpenSession
from coworkd.model.layout import GuestLayout
from coworkd.model.policy import (
    EffectivePolicy,
    EgressPolicy,
    FolderMode,
    FoldersPolicy,
    LimitsPolicy,
    LimitsRequest,
    Profile,
    SandboxPolicy,
    SeccompProgram,
)
from coworkd.model.ports import OpenedSession
from coworkd.model.session import RECORD_FORMAT, FolderGrant, SessionRecord
from coworkd.services.folders import Folders
from coworkd.services.folders_journals import Journals
from coworkd.services.folders_judging import FolderRules
from coworkd.services.session_home import Homes
from coworkd.services.session_measuring import Place
from coworkd.services.session_records import RecordStore
from coworkd.services.sessions import Sessions
from tests.unit.services.fake_groups import FakeGroups
from tests.unit.services.fake_launcher import FakeLauncher
from tests.unit.services.folder_fakes import FakeGuard, FakeMounts, FakeStages
from tests.unit.services.process_house import NOW, FakeAudit, FakeEvents, FakeLink

LAYOUT = GuestLayout(
    links=(),
    directories=(b"/usr",),
    etc_directories=(),
    etc_files=(),
    cpu_files=(),
    proc_masked=(),
    proc_emptied=(),
    proc_read_only=(),
    python=None,
)


def record(name: str = "bob", **fields: Any) -> SessionRecord:
    known = {"uid": 1001, "gid": 1001, "profile": "default", "created_at": 1.0, "state": "ready"}
    return SessionRecord(format=RECORD_FORMAT, name=name, **{**known, **fields})


def profile(
    *modes: FolderMode, allow_sockets: bool = False, ask_delete: bool = False, name: str = "default"
) -> Profile:
    return Profile(
        name=name,
        sandbox=SandboxPolicy(base="dev", seccomp="default", warm=0, ask_delete=ask_delete),
        limits=LimitsPolicy(
            memory_max_bytes=1 << 30,
            memory_high_bytes=1 << 30,
            swap_max_bytes=0,
            pids_max=100,
            cpu_max=1.0,
            cpu_weight=100,
            io_weight=100,
            tmp_max_bytes=1 << 20,
            disk_max_bytes=1 << 30,
            nofile=1024,
            fsize_max_bytes=0,
            cpu_time_s=0,
            core_max_bytes=0,
            timeout_s=0.0,
        ),
        folders=FoldersPolicy(modes=modes or ("ro", "rw", "rwd", "staged"), allow_sockets=allow_sockets),
        egress=EgressPolicy(settings="default", upstream="direct", allow_max_s=0.0),
    )


def folder(name: str = "src", **fields: Any) -> FolderGrant:
    return FolderGrant(**{"name": name, "source": f"/srv/{name}", "mode": "ro", **fields})


class FakeSessionLauncher(FakeLauncher):
    """A launcher that opens sessions and mounts folders in them: it remembers which, and fails as `fails` says."""

    def __init__(self, trace: list[str]) -> None:
        super().__init__()
        self.trace = trace
        self.open: dict[str, OpenSession] = {}
        self.mounts = FakeMounts(trace, lambda: self.generation)
        self.told: tuple[str, ...] = ()
        self.fails: dict[str, CoworkError] = {}
        self.connections = 1

    @property
    def generation(self) -> int:
        return self.connections

    async def open_session(self, request: OpenSession, /) -> OpenedSession:
        await self._turn()
        if "open" in self.fails:
            raise self.fails["open"]
        left = tuple(self.mounts.of(request.session))
        if request.session not in self.open:
            self.trace.append(f"open {request.session}")
            self.open[request.session] = request
        return OpenedSession(missing=(), degraded=self.told, listeners=(os.memfd_create("listener"),), folders=left)

    async def close_session(self, session: str, /) -> None:
        await self._turn()
        if "close" in self.fails:
            raise self.fails["close"]
        if self.open.pop(session, None) is not None:
            self.trace.append(f"close {session}")
        self.mounts.close(session)

    def restart(self) -> None:
        """Another launcher, which knows nothing."""
        self.open.clear()
        self.mounts.there.clear()
        self.connections += 1


class FakePolicies:
    """Implements `ports.SessionPolicyPort`."""

    def __init__(self) -> None:
        self.error: CoworkError | None = None
        self.profile = profile()
        self.narrowed: tuple[str, ...] = ()
        self.egress_narrowed: tuple[str, ...] = ()
        self.egress: SessionEgress | None = None
        """What holds for every session, where a test says so."""

    async def effective(self, name: str | None, limits: LimitsRequest, /) -> EffectivePolicy:
        if self.error is not None:
            raise self.error
        program = SeccompProgram(sha256="0" * 64, bpf=bytes(8), source="test")
        return EffectivePolicy(
            profile=structs.replace(self.profile, name=name or "default"),
            base_filter=program,
            admin_filter=program,
            narrowed=self.narrowed,
        )

    def presets(self) -> calls.EgressPresets:
        return calls.EgressPresets(presets={}, file=None, made_at=None)

    def compose_egress(
        self, policy: EffectivePolicy, request: Mapping[str, Any] | None, /
    ) -> tuple[SessionEgress, tuple[str, ...]]:
        if self.egress is not None:
            return self.egress, self.egress_narrowed
        settings = [EgressSettings(source=f"egress/{policy.profile.name}.json", allowed=("index.example",))]
        if request is not None:
            if "network" not in request:
                raise InvalidParams("network is missing", key="network")
            settings.append(EgressSettings(source="request", allowed=tuple(request["network"]["allowedDomains"])))
        return SessionEgress(settings=tuple(settings)), self.egress_narrowed


class FakeEgress:
    """Implements `ports.EgressPort`; owns the listeners as the real one does."""

    def __init__(self, trace: list[str]) -> None:
        self.trace = trace
        self.served: dict[str, SessionEgress] = {}
        self.error: CoworkError | None = None
        """What a change is refused with."""
        self.listeners: dict[str, tuple[int, ...]] = {}
        self.close_forbidden: list[bool] = []

    async def serve_session(self, session: str, egress: SessionEgress, listeners: tuple[int, ...], /) -> None:
        self._close(session)
        self.served[session], self.listeners[session] = egress, listeners

    async def change(self, session: str, egress: SessionEgress, /, *, close_forbidden: bool) -> int:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.served[session] = egress
        self.close_forbidden.append(close_forbidden)
        return 3

    async def stop(self, session: str, /) -> None:
        if self.served.pop(session, None) is not None:
            self.trace.append(f"stop {session}")
        self._close(session)

    def allowances(self, session: str, /) -> tuple[Allowance, ...]:
        return ()

    def _close(self, session: str) -> None:
        for fd in self.listeners.pop(session, ()):
            os.close(fd)


class FakeTrust:
    """Implements `ports.TrustPort`."""

    directory = "/state/trust/current"
    bundle_path_inside: str | None = None


class FakeProcesses:
    """Implements `ports.ProcessDirectory`."""

    def __init__(self, trace: list[str]) -> None:
        self.trace = trace
        self.running: dict[str, int] = {}

    def count(self, session: str, /) -> int:
        return self.running.get(session, 0)

    async def end_session(self, session: str, /) -> None:
        self.trace.append(f"end {session}")
        self.running.pop(session, None)

    def find_by_ancestor(self, pid: int, /) -> tuple[str, str] | None:
        return None


class OwnHomes(Homes):
    """Homes whose owners need no root: what would be owned by a session is remembered instead."""

    def __init__(self, directory: str, trace: list[str]) -> None:
        super().__init__(directory, with_accounts=False)
        self.trace = trace
        self.uids: dict[str, int] = {}
        self.fails: dict[str, CoworkError] = {}

    def choose_uid(self, name: str, recorded: Iterable[int]) -> int:
        return self.uids.get(name) or max([1000, *recorded]) + 1

    def scan(self) -> dict[str, int]:
        return {name: uid for name, uid in self.uids.items() if self.exists(name)}

    def owner(self, name: str) -> int | None:
        return self.uids.get(name) if self.exists(name) else None

    def other_owners(self) -> dict[int, str]:
        return {}

    def make(self, name: str, uid: int, skeleton: bool = True) -> None:
        if "make" in self.fails:
            raise self.fails["make"]
        os.makedirs(self.path(name), exist_ok=True)
        self.uids[name] = uid

    def remove(self, name: str) -> int:
        if "remove" in self.fails:
            raise self.fails["remove"]
        self.trace.append(f"remove {name}")
        return super().remove(name)


class FakeStorage:
    """Implements `ports.StorageGuard`."""

    def __init__(self) -> None:
        self.unusable: str | None = None
        self.freed_bytes: list[int] = []

    def refuse_if_unusable(self) -> None:
        if self.unusable is not None:
            raise Unavailable(self.unusable)

    def freed(self, freed_bytes: int, /) -> None:
        self.freed_bytes.append(freed_bytes)


class FakeReowner:
    """Implements `session_recovering.Reowner`."""

    def __init__(self, trace: list[str], homes: OwnHomes) -> None:
        self.trace = trace
        self.homes = homes
        self.error: CoworkError | None = None

    async def reown(self, place: Place, uid_from: int, uid_to: int) -> int:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        _, name = place
        self.trace.append(f"reown {name} {uid_from} {uid_to}")
        if self.homes.uids.get(name) == uid_from:
            self.homes.uids[name] = uid_to
        return 1


class SessionHouse:
    """The service and everything around it. `trace` is the order of effects."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = NOW
        self.trace: list[str] = []
        self.launcher = FakeSessionLauncher(self.trace)
        self.groups = FakeGroups(self.trace)
        self.policies = FakePolicies()
        self.processes = FakeProcesses(self.trace)
        self.egress = FakeEgress(self.trace)
        self.trust = FakeTrust()
        self.audit = FakeAudit()
        self.events = FakeEvents()
        self.storage = FakeStorage()
        self.homes = OwnHomes(str(directory / "homes"), self.trace)
        self.records = RecordStore(str(directory / "state"))
        self.reowner = FakeReowner(self.trace, self.homes)
        self.link = FakeLink()
        self.stages = FakeStages()
        self.guard = FakeGuard(self.trace)
        self.sessions = self.make()

    def make(self) -> Sessions:
        self.folders = Folders(
            launcher=self.launcher.mounts,
            stages=self.stages,
            guard=self.guard,
            rules=FolderRules(share_root="", own_directories=(str(self.directory),)),
            journals=Journals(str(self.directory / "state")),
            audit=self.audit,
            events=self.events,
        )
        made = Sessions(
            records=self.records,
            homes=self.homes,
            layout=LAYOUT,
            launcher=self.launcher,
            groups=self.groups,
            reowner=self.reowner,
            folders=self.folders,
            policies=self.policies,
            egress=self.egress,
            trust=self.trust,
            audit=self.audit,
            events=self.events,
            storage=self.storage,
            clock=lambda: self.now,
        )
        made.attach(self.processes)
        self.folders.attach(made)
        return made

    async def restart(self) -> None:
        """coworkd is gone and another begins on the same disk, with the same launcher on a new connection."""
        self.launcher.connections += 1
        self.guard.watched.clear()
        self.sessions = self.make()
        await self.sessions.load()

    async def ensure(self, name: str = "bob", **fields: Any) -> calls.SessionEnsured:
        return await self.sessions.ensure(calls.SessionEnsure(**{"name": name, **fields}), self.link)

    def stored(self) -> dict[str, SessionRecord]:
        return self.records.load()

    def home(self, name: str = "bob") -> Path:
        return Path(self.homes.path(name))


@asynccontextmanager
async def open_house(directory: Path, *, serve: bool = True) -> AsyncIterator[SessionHouse]:
    house = SessionHouse(directory)
    await house.sessions.load()
    async with trio.open_nursery() as nursery:
        if serve:
            await nursery.start(house.sessions.serve)
        yield house
        nursery.cancel_scope.cancel()
