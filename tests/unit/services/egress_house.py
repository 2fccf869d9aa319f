"""What tests of the way out share: an audit log, a policy, and a coworkd-egress that is a script."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model import egress as words
from coworkd.model.calls import AuditRecords, EgressPresets
from coworkd.model.errors import DiskFailed
from coworkd.model.policy import EffectivePolicy, LimitsRequest, SeccompProgram
from coworkd.services.egress import Egress
from coworkd.system import packet
from tests.unit.services.process_house import FakeAudit, FakeEvents, FakePolicies, FakeSessions, open_fds

BEGUN = words.Begun(id=0, version="1", pid=77, sessions=())


class FakeAuditLog(FakeAudit):
    """Implements `ports.AuditReader`; `broken` is how many batches are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = 0

    async def record_all(self, records: Sequence[tuple[str, Mapping[str, Any]]], /) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            self.broken -= 1
            raise DiskFailed("no space left on the device")
        self.records += [(kind, dict(fields)) for kind, fields in records]

    async def find(
        self, *, kinds: Sequence[str] = (), session: str | None = None, refused_only: bool = False, limit: int
    ) -> AuditRecords:
        found = [
            {"at": 1.0, "kind": kind, **{name: value for name, value in fields.items() if value is not None}}
            for kind, fields in self.records
            if kind in kinds
            and session in (None, fields.get("session"))
            and not (refused_only and fields.get("allowed") is not False)
        ]
        return AuditRecords(records=tuple(found[-limit:]), truncated=len(found) > limit)


class FakeEgressPolicies(FakePolicies):
    """Implements `ports.SessionPolicyPort`: one host is allowed, and a request is one host more that must be allowed."""

    allowed = ("index.example",)
    allow_max_s = 0.0

    async def effective(self, profile: str | None, limits: LimitsRequest, /) -> EffectivePolicy:
        found = await super().effective(profile, limits)
        egress = structs.replace(found.profile.egress, allow_max_s=self.allow_max_s)
        return structs.replace(found, profile=structs.replace(found.profile, egress=egress))

    def presets(self) -> EgressPresets:
        return EgressPresets(presets={}, file=None, made_at=None)

    def compose_egress(
        self, policy: EffectivePolicy, request: Mapping[str, Any] | None, /
    ) -> tuple[words.SessionEgress, tuple[str, ...]]:
        settings = [words.EgressSettings(source="egress/test.json", allowed=self.allowed)]
        if request is not None:
            settings.append(words.EgressSettings(source="request", allowed=tuple(request["allow"])))
        return words.SessionEgress(settings=tuple(settings)), ()


class Script:
    """coworkd-egress: connections it was asked for, and the words on the newest."""

    def __init__(self) -> None:
        self.refuse: OSError | None = None
        self.connections = 0
        self.fds: list[int] = []
        self._socket: trio.socket.SocketType | None = None
        self._connected = trio.Event()

    async def connect(self) -> trio.socket.SocketType:
        await trio.lowlevel.checkpoint()
        if self.refuse is not None:
            raise self.refuse
        ours, theirs = trio.socket.socketpair(trio.socket.AF_UNIX, trio.socket.SOCK_SEQPACKET)
        self._socket = ours
        self.connections += 1
        self._connected.set()
        return theirs

    async def next(self) -> Any:
        """The next request; its descriptors are in `fds`."""
        await self._connected.wait()
        assert self._socket is not None
        data, ancillary, flags, _ = await self._socket.recvmsg(*packet.RECEIVE_ARGUMENTS)
        message, fds = packet.unpack(data, ancillary, flags)
        for fd in self.fds:
            os.close(fd)
        self.fds = fds
        return msgspec.msgpack.decode(message, type=words.Request)

    async def say(self, reply: words.Reply) -> None:
        assert self._socket is not None
        await self._socket.send(msgspec.msgpack.encode(reply))

    async def begin(self, *, pid: int = 77, degraded: tuple[str, ...] = ()) -> words.Begin:
        """Take the first request of a conversation and answer it."""
        request = await self.next()
        assert isinstance(request, words.Begin)
        await self.say(msgspec.structs.replace(BEGUN, id=request.id, pid=pid, degraded=degraded))
        return request

    async def done(self, kind: type[words.Request], *, closed: int = 0) -> Any:
        """Take a request that must be a `kind`, and do it."""
        request = await self.next()
        assert isinstance(request, kind), request
        assert not isinstance(request, words.Recorded)
        await self.say(words.Done(id=request.id, closed=closed))
        return request

    def hang_up(self) -> None:
        """End the conversation."""
        assert self._socket is not None
        self._connected = trio.Event()
        self._socket.close()
        self._socket = None
        for fd in self.fds:
            os.close(fd)
        self.fds = []


def event(seq: int, kind: words.EgressEventKind = "open", **fields: Any) -> words.EgressEvent:
    """One event of session bob's connection 1 to index.example."""
    given: dict[str, Any] = {
        "session": "bob",
        "connection": 1,
        "at": 1.0,
        "protocol": "connect",
        "host": "index.example",
        "port": 443,
        **fields,
    }
    return words.EgressEvent(seq=seq, kind=kind, **given)


BOB = words.SessionEgress(settings=(words.EgressSettings(source="egress/test.json", allowed=("index.example",)),))
INSPECTED = words.SessionEgress(
    settings=(words.EgressSettings(source="t", inspect=words.Inspection(domains=("index.example",))),)
)


class FakeInspectionTrust:
    """Implements `services.egress_serving.InspectionTrust`."""

    def __init__(self) -> None:
        self.pems: list[bytes | None] = []
        self.installed_pem = "ROOT"

    async def set_inspection_ca(self, pem: bytes | None) -> None:
        self.pems.append(pem)


class EgressRoom:
    """The service, and everything around it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.script = Script()
        self.audit = FakeAuditLog()
        self.events = FakeEvents()
        self.policies = FakeEgressPolicies()
        self.sessions = FakeSessions()
        self.trust = FakeInspectionTrust()
        self.states: list[str | None] = []
        self.egress = Egress(
            self.script.connect,
            version="1",
            host_uri="vsock://2:5006",
            filter_program=lambda: SeccompProgram(sha256="0" * 64, bpf=b"12345678", source="egress"),
            policies=self.policies,
            trust=self.trust,
            audit=self.audit,
            events=self.events,
            on_state=self.states.append,
            clock=lambda: self.now,
        )
        self.egress.attach(self.sessions)

    async def serve_bob(self, egress: words.SessionEgress = BOB) -> words.Serve:
        """Serve bob, and what coworkd-egress heard of it."""
        listener = os.memfd_create("listener")
        served: list[words.Serve] = []

        async def take() -> None:
            served.append(await self.script.done(words.Serve))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await self.egress.serve_session("bob", egress, (listener,))
        return served[0]


@asynccontextmanager
async def open_room(*, begun: bool = True) -> AsyncIterator[EgressRoom]:
    before = open_fds()
    room = EgressRoom()
    async with trio.open_nursery() as nursery:
        if begun:
            async with trio.open_nursery() as starting:
                starting.start_soon(room.script.begin)
                await nursery.start(room.egress.serve)
        yield room
        nursery.cancel_scope.cancel()
    room.egress.close()
    if begun:
        room.script.hang_up()
    assert open_fds() == before


async def together(script: Any, call: Any) -> Any:
    """Run `call` while `script` answers it."""
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        answers.insert(0, await script)
    return answers


def allow_call(host: str = "extra.example", duration_s: float = 60.0) -> calls.EgressAllow:
    return calls.EgressAllow(session="bob", host=host, duration_s=duration_s)
