"""Tools: agent CLIs and the like, installed from the host's share by version and SHA-256, and switched without a running command noticing.

Rules
- What is installed is what has the digest that was asked for: it is hashed while it is copied, by a worker with a deadline, and named
  only then. Nothing of it is ever run here; commands find it at /opt/tools/bin, in their sandboxes.
- The record in the audit log is durable before a version is placed, switched to, or removed.
- One install at a time; a second is refused rather than queued.
- A version that is there with the same digest is switched to, which is also the way back; with another digest it is refused.
- Of each tool the newest `keep` versions stay, and always the current one.

Not here: layout and crash safety (`tools_store`), the worker (`tools_fetching`).
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn, Protocol, TypeVar

import trio

from coworkd.model import calls_tools as calls
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    DiskFailed,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    Unavailable,
)
from coworkd.model.ports import AuditPort
from coworkd.model.tool import FetchTool, ToolAnswer, ToolFetched, ToolRefused
from coworkd.services.tools_store import ToolStore

MOUNT_POINT = "/opt/tools"
"""Where sandboxes have the tree. It must be there in the guest, for /opt of a sandbox is the guest's own, read-only."""
TIMEOUT_S = 300.0
MAX_TIMEOUT_S = 3600.0
MAX_TOOLS = 64
MAX_COMMANDS = 64
LIMIT_ENTRIES = 200_000
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
_COMMAND = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_RESERVED = frozenset({"bin", "current"})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_log = logging.getLogger("coworkd.tools")
_R = TypeVar("_R")


class FetchPort(Protocol):
    """Who brings a tool to the disk. Raises `DeadlineExceeded`, `Unavailable`."""

    async def fetch(self, request: FetchTool, *, timeout_s: float) -> ToolAnswer: ...


class StoragePort(Protocol):
    """Whether the session disk can be used."""

    def refuse_if_unusable(self) -> None: ...


class Tools:
    """The tools of one guest. `load` before anything else."""

    def __init__(
        self,
        state_dir: str,
        *,
        share_root: str,
        keep: int,
        max_bytes: int,
        fetching: FetchPort,
        storage: StoragePort,
        audit: AuditPort,
        mount_point: str = MOUNT_POINT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = ToolStore(os.path.join(state_dir, "tools"))
        self._share_root = share_root
        self._keep = keep
        self._max_bytes = max_bytes
        self._fetching = fetching
        self._storage = storage
        self._audit = audit
        self._mount_point = mount_point
        self._clock = clock
        self._turn = trio.Lock()
        self._failed: str | None = "tools were not looked at yet"

    @property
    def directory(self) -> str | None:
        """What sandboxes have at `MOUNT_POINT`; None where they cannot. The same inode for ever."""
        return self._store.tree if self._failed is None and os.path.isdir(self._mount_point) else None

    async def load(self) -> str | None:
        """Clear what was not finished; the reason where tools cannot be had, and then only they cannot."""
        try:
            await trio.to_thread.run_sync(self._store.open)
            self._failed = None
        except OSError as error:
            self._failed = f"the tools on the session disk cannot be read: {error.strerror or error}"
        return self._failed

    async def list(self) -> calls.ToolList:
        """Every version, by tool, the newest first."""
        return calls.ToolList(tools=tuple(self._store.every()))

    async def install(self, params: calls.ToolInstall, /) -> calls.ToolInstalled:
        """Bring a version, and switch to it.

        Raises `InvalidParams`, `NotFound`, `AlreadyExists`, `LimitExceeded`, `InvalidState`; `DeadlineExceeded`, `DiskFailed`,
        `Unavailable`.
        """
        _check(params)
        self._refuse_if_unusable()
        if self._turn.locked():
            raise LimitExceeded("another tool is being installed or removed; try again when it is")
        async with self._turn:
            there = self._store.get(params.name, params.version)
            if there is None:
                there = await self._bring(params)
                changed = True
            else:
                _check_same(there, params)
                changed = params.switch and not there.current
                if changed:
                    self._check_commands(params.name, there.commands)
                    await self._record("tool.install", there)
            if params.switch and not there.current:
                await self._on_disk(partial(self._store.switch, params.name, params.version))
                _log.info(
                    "SDK installed: version=%s",
                    there.version,
                    extra={"fields": {"name": there.name, "sha256": there.sha256}},
                )
            pruned = await self._prune(params.name)
            now = self._store.get(params.name, params.version)
            assert now is not None
        return calls.ToolInstalled(tool=now, changed=changed, pruned=pruned)

    async def remove(self, params: calls.ToolRemove, /) -> calls.ToolRemoved:
        """Take one version away, or all. Raises `NotFound`, `InvalidState` (the one in use, while others are there), `DiskFailed`."""
        self._refuse_if_unusable()
        async with self._turn:
            versions = self._store.versions(params.name)
            going = [info for info in versions if params.version in (None, info.version)]
            if not going:
                raise NotFound(
                    f"there is no such version of {params.name[:64]!a}; tool.list tells what there is", key="version"
                )
            if len(going) < len(versions) and any(info.current for info in going):
                raise InvalidState(
                    f"{going[0].version} is the version in use: switch to another (tool.install), or remove all",
                    key="version",
                )
            for info in sorted(going, key=lambda info: info.current):
                await self._record("tool.remove", info)
                await self._on_disk(partial(self._store.remove, info.name, info.version))
        return calls.ToolRemoved(removed=tuple(info.version for info in going))

    # -- inside

    async def _bring(self, params: calls.ToolInstall) -> calls.ToolInfo:
        """Fetch and place it; it is not in use yet."""
        names = {info.name for info in self._store.every()}
        if params.name not in names and len(names) >= MAX_TOOLS:
            raise LimitExceeded(f"{MAX_TOOLS} tools are installed already; remove one (tool.remove)", key="name")
        root, source = self._locate(params.source)
        incoming = await self._on_disk(self._store.make_incoming)
        try:
            request = FetchTool(
                id=1,
                root=root,
                source=source,
                incoming=os.fsencode(os.path.join(incoming, "root")),
                file_name=params.name.encode(),
                sha256=params.sha256.lower(),
                limit_bytes=self._max_bytes,
                limit_entries=LIMIT_ENTRIES,
            )
            answer = await self._fetching.fetch(request, timeout_s=params.timeout_s or TIMEOUT_S)
            if isinstance(answer, ToolRefused):
                _raise(answer, source)
            commands = find_commands(params.name, params.commands, answer)
            self._check_commands(params.name, tuple(commands))
            info = calls.ToolInfo(
                name=params.name,
                version=params.version,
                sha256=params.sha256.lower(),
                size_bytes=answer.size_bytes,
                installed_at=self._clock(),
                commands=tuple(sorted(commands)),
            )
            with trio.CancelScope(shield=True):  # a record of what never was would stay
                await self._record("tool.install", info)
                await self._on_disk(partial(self._store.place, incoming, info, commands))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._on_disk(partial(self._store.drop_incoming, incoming))
            raise
        return info

    async def _prune(self, name: str) -> tuple[str, ...]:
        versions = self._store.versions(name)
        spare = [info for info in versions if not info.current]
        room = self._keep - (len(versions) - len(spare))
        going = spare[max(0, room) :]
        for info in going:
            await self._record("tool.remove", info)
            await self._on_disk(partial(self._store.remove, info.name, info.version))
        return tuple(info.version for info in going)

    def _refuse_if_unusable(self) -> None:
        self._storage.refuse_if_unusable()
        if self._failed is not None:
            raise Unavailable(self._failed)
        if not os.path.isdir(self._mount_point):
            raise InvalidState(
                f"this machine has no {self._mount_point}, where sandboxes would have tools: make that directory",
                key="name",
            )

    def _locate(self, source: bytes | None) -> tuple[bytes, bytes]:
        if source is None:
            raise InvalidParams("that version is not there yet: name its source, a file below the share", key="source")
        if self._share_root:
            return os.fsencode(self._share_root), bytes(source)  # no subclass of bytes travels to the worker
        if not source.startswith(b"/"):
            raise InvalidParams("there is no share here: source is an absolute path", key="source")
        return b"/", source.lstrip(b"/")

    def _check_commands(self, name: str, commands: tuple[str, ...]) -> None:
        for command in commands:
            owner = self._store.owner_of(command)
            if owner not in (None, name):
                raise AlreadyExists(
                    f"{command!r} is a command of {owner} already; name others (commands)", key="commands"
                )

    async def _record(self, kind: str, info: calls.ToolInfo) -> None:
        fields = {"name": info.name, "version": info.version}
        await self._audit.record(kind, {**fields, "sha256": info.sha256} if kind == "tool.install" else fields)

    async def _on_disk(self, work: Callable[[], _R]) -> _R:
        try:
            return await trio.to_thread.run_sync(work)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise LimitExceeded(
                    "the session disk is full; remove a tool or prune sessions", errno=error.errno
                ) from error
            raise DiskFailed(f"the session disk refused: {error.strerror or error}", errno=error.errno) from error


def find_commands(name: str, asked: dict[str, str] | None, fetched: ToolFetched) -> dict[str, str]:
    """Command → path below what was fetched. Raises `InvalidParams`. Pure."""
    there = {path.decode("utf-8", "surrogateescape") for path in fetched.executables}
    if asked is not None:
        for command, path in asked.items():
            if path not in there:
                raise InvalidParams(
                    f"the command {command!r} is to be {path!a}, which is no executable file in it", key="commands"
                )
        return dict(asked)
    places = [path for path in there if path == name or path.endswith(f"/{name}")]
    if not places:
        raise InvalidParams(f"there is no executable {name!r} in it: name its commands (commands)", key="commands")
    nearest = min(path.count("/") for path in places)
    found = sorted(path for path in places if path.count("/") == nearest)
    if len(found) > 1:
        raise InvalidParams(
            f"{found[0]!a} and {found[1]!a} could both be {name!r}: name its commands (commands)", key="commands"
        )
    return {name: found[0]}


def _check(params: calls.ToolInstall) -> None:
    if _NAME.fullmatch(params.name) is None or params.name in _RESERVED:
        raise InvalidParams(
            f"{params.name[:80]!a} is no name of a tool: lower-case letters, digits and '-'", key="name"
        )
    if _VERSION.fullmatch(params.version) is None or params.version in _RESERVED:
        raise InvalidParams(
            f"{params.version[:80]!a} is no version: letters, digits, '.', '+', '_' and '-', at most 64", key="version"
        )
    if _SHA256.fullmatch(params.sha256) is None:
        raise InvalidParams("sha256 is 64 hexadecimal digits", key="sha256")
    if params.timeout_s is not None and not 0 < params.timeout_s <= MAX_TIMEOUT_S:
        raise InvalidParams(f"timeout_s is more than 0 and at most {MAX_TIMEOUT_S:.0f}", key="timeout_s")
    if params.commands is not None and not 0 < len(params.commands) <= MAX_COMMANDS:
        raise InvalidParams(f"a tool has 1 to {MAX_COMMANDS} commands", key="commands")
    for command in params.commands or ():
        if _COMMAND.fullmatch(command) is None:
            raise InvalidParams(f"{command[:80]!a} is no name of a command", key="commands")


def _check_same(there: calls.ToolInfo, params: calls.ToolInstall) -> None:
    if there.sha256 != params.sha256.lower():
        raise AlreadyExists(
            f"{there.name} {there.version} is installed with SHA-256 {there.sha256}: versions do not change; remove it first",
            key="sha256",
        )


def _raise(refused: ToolRefused, source: bytes) -> NoReturn:
    shown = f"{os.fsdecode(source)!a}: {refused.message}"
    errors: dict[str, type[CoworkError]] = {
        "not_found": NotFound,
        "unreadable": Unavailable,
        "too_big": LimitExceeded,
        "disk": LimitExceeded if refused.errno in _NO_ROOM else DiskFailed,
    }
    raise errors.get(refused.why, InvalidParams)(shown, key="source", errno=refused.errno)
