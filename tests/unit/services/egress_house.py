"""What tests of the way out share: an audit log, a policy, and a coworkd-egress that is a script."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio
from msgspec import structs

from coworkd.model import egress as words
from coworkd.model.calls import AuditRecords, EgressPresets
from coworkd.model.errors import DiskFailed
from coworkd.model.policy import EffectivePolicy, LimitsRequest
from coworkd.system import packet
from tests.unit.services.process_house import FakeAudit, FakePolicies

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
