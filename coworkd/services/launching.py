"""The launcher, from coworkd's side: requests out, answers and notices in, descriptors owned from the moment they arrive.

Rules
- One connection; every request has an id and exactly one answer. The first request is `Adopt`.
- Notices are handed to the watcher of their process synchronously and in order; one of a process that was adopted and is not taken yet
  becomes part of what is taken. Any other that nobody watches is dropped with a log line.
- A launcher that is lost fails every waiting request with `Unavailable`, tells every watcher None, and is connected to again; its
  successor knows no session, so `generation` grows and sessions are opened anew.
- A request that was sent is waited for even if its caller is cancelled: its answer may bring descriptors. What is only told (id 0) has
  no answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import trio
from msgspec import structs

from coworkd.model import launch
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.policy import EffectivePolicy, SeccompProgram
from coworkd.model.ports import OpenedSession, SpawnedFds
from coworkd.services.launching_adopted import Untaken
from coworkd.services.launching_channel import Channel
from coworkd.services.launching_folders import LauncherFolders
from coworkd.services.launching_groups import LauncherGroups
from coworkd.services.launching_refusals import raise_refusal
from coworkd.system.coming import Coming

_RETRY_S = 0.1
_QUIT_S = 5.0
_log = logging.getLogger("coworkd.launching")

_A = TypeVar("_A", bound=launch.Answer)

Connect = Callable[[], Awaitable[trio.socket.SocketType]]
Watcher = Callable[[launch.Notice | None], None]


class LaunchedFds:
    """The descriptors of one `Spawned`, by name; implements `ports.SpawnedFds`."""

    def __init__(self, spawned: launch.Spawned, fds: list[int]) -> None:
        self._spawned = spawned
        self._fds = dict(zip(spawned.fds, fds, strict=True))

    @property
    def spawned(self) -> launch.Spawned:
        return self._spawned

    def take(self, name: str, /) -> int | None:
        """The descriptor `name`, the caller's from now on."""
        return self._fds.pop(name, None)

    def take_gate(self) -> LaunchedGate:
        """The command's gate, the caller's from now on."""
        return LaunchedGate(self._fds.pop("gate", -1))

    def close(self) -> None:
        """Close what was not taken."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}


class LaunchedGate:
    """Implements `ports.CommandGate`. Owns `fd`; below 0 there is none, for want of descriptors."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def open(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # nobody waits any more, which is told by a notice
                os.write(self._fd, launch.GO)
            self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_Answered = tuple[launch.Answer, list[int]]
"""An answer and its descriptors."""


class LauncherClient:
    """Implements `ports.LauncherPort`. `serve` keeps the connection; calls before it or while it is away raise `Unavailable`."""

    def __init__(self, connect: Connect, *, version: str, on_state: Callable[[str | None], None]) -> None:
        """`on_state` is told why the launcher is away or limited, or None."""
        self._connect = connect
        self._version = version
        self._on_state = on_state
        self._channel: Channel | None = None
        self._waiting: dict[int, Coming[_Answered | None]] = {}
        self._watchers: dict[str, Watcher] = {}
        self._filters: dict[str, None] = {}
        self._last_id = 0
        self._untaken = Untaken()
        self._adoption = trio.Event()
        self.taken_over: launch.TakenOver | None = None
        """What the first launcher said of itself; None before that."""
        self._quitting = False
        self._tell_started: Callable[[], None] = _nothing
        self.generation = 0
        self.pid: int | None = None
        self.on_lost: Callable[[int | None], None] = lambda pid: None
        """Told of a launcher that is lost, by its pid, before anybody else is."""
        self.folders = LauncherFolders(self._ask_for_fds, generation=lambda: self.generation)
        """The launcher, for those who mount folders and need workers."""
        self.groups = LauncherGroups(self._ask_for_fds)
        """The launcher, for those who limit, stop and measure what runs."""

    # -- the connection -----------------------------------------------------------------------------------------

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, adopt, and receive, until cancelled or `quit`; started after the first adoption that succeeded."""
        self._tell_started = task_status.started
        try:
            while not self._quitting:
                await self._serve_connection(Channel(await self._connect_again()))
        finally:
            self._untaken.close()

    async def _serve_connection(self, channel: Channel) -> None:
        async with trio.open_nursery() as nursery:
            try:
                self._begin(channel)
                nursery.start_soon(self._adopt)
                await channel.receive(self._take)
                self._lose(channel)
            finally:
                # Cancelled: coworkd goes, not the launcher. The commands run on, so nobody may hear that they were lost; but who waits for
                # an answer has to hear that none comes, whoever takes over among them, or this end would wait for them for ever.
                self._let_go(channel)

    async def _connect_again(self) -> trio.socket.SocketType:
        while True:
            try:
                return await self._connect()
            except (OSError, Unavailable) as error:
                self._on_state(f"the launcher cannot be reached: {getattr(error, 'strerror', None) or error}")
                await trio.sleep(_RETRY_S)

    def _begin(self, channel: Channel) -> None:
        self._channel = channel
        self._filters.clear()
        self.generation += 1
        self.pid = channel.pid

    async def _adopt(self) -> None:
        try:
            done, received = await self._ask_for_fds(launch.Adopt(id=0, version=self._version), launch.TakenOver)
        except CoworkError as error:
            _log.warning("adoption failed: %s", error.message)
            return
        _close_all(received)
        self.taken_over = self.taken_over or done
        self._adoption.set()
        self._on_state("; ".join(done.degraded) or None)
        self._tell_started()
        self._tell_started = _nothing

    def _take(self, reply: launch.Reply, fds: list[int]) -> None:
        if isinstance(reply, launch.Adopted):
            self._untaken.keep(reply, LaunchedFds(reply.spawned, fds))
        elif isinstance(reply, launch.Answer):
            waiting = self._waiting.pop(reply.id, None)
            if waiting is None:
                _close_all(fds)
                return
            waiting.come((reply, fds))
        else:
            _close_all(fds)
            watcher = self._watchers.get(reply.process)
            if watcher is not None:
                watcher(reply)
            elif not self._untaken.learn(reply):
                _log.debug("nobody waits for %s of %s", type(reply).__name__, reply.process)

    def _lose(self, channel: Channel) -> None:
        if self._channel is not channel:
            return
        if not self._quitting:
            self.on_lost(self.pid)
        watchers = self._let_go(channel)
        self._untaken.lose()
        self._on_state("the launcher is gone")
        for watcher in watchers:
            watcher(None)

    def _let_go(self, channel: Channel) -> tuple[Watcher, ...]:
        """Close it, once; who waits for an answer gets none. Returns who waited for news of a command."""
        channel.close()
        if self._channel is not channel:
            return ()
        self._channel = None
        self.pid = None
        for waiting in self._waiting.values():
            waiting.come(None)
        self._waiting.clear()
        watchers = tuple(self._watchers.values())
        self._watchers.clear()
        return watchers

    # -- requests -----------------------------------------------------------------------------------------------

    async def _ask(self, request: launch.Request, fds: tuple[int, ...] = ()) -> launch.Done:
        """Send and wait, whatever happens to the caller. Raises `Unavailable` and what `raise_refusal` does."""
        done, received = await self._ask_for_fds(request, launch.Done, fds)
        _close_all(received)
        return done

    async def _ask_for_fds(
        self,
        request: launch.Request,
        kind: type[_A],
        fds: tuple[int, ...] = (),
        on_refused: Callable[[launch.Refused], NoReturn] = raise_refusal,
    ) -> tuple[_A, list[int]]:
        """The answer and what came with it, the caller's from now on. Raises `Unavailable` and what `on_refused` does."""
        self._last_id += 1
        number = self._last_id
        waiting = self._waiting[number] = Coming()
        try:
            await self._send(structs.replace(request, id=number), fds)
        except CoworkError:
            self._waiting.pop(number, None)
            raise
        answered = await waiting.wait()
        if answered is None:
            raise Unavailable("the launcher went away during the call; it is being started again")
        answer, received = answered
        if not isinstance(answer, kind):
            _close_all(received)
            if isinstance(answer, launch.Refused):
                on_refused(answer)
            raise Unavailable(f"the launcher answered {type(request).__name__} with {type(answer).__name__}")
        return answer, received

    async def _send(self, request: launch.Request, fds: tuple[int, ...] = ()) -> None:
        """What is sent with the id 0 has no answer. Raises `Unavailable`."""
        if self._channel is None:
            raise Unavailable("the launcher is away; it is being started again")
        try:
            await self._channel.send(request, fds)
        except trio.ClosedResourceError as error:
            raise Unavailable("the launcher went away during the call; it is being started again") from error
        except OSError as error:
            raise Unavailable(f"the launcher does not answer: {error.strerror}") from error

    async def open_session(self, request: launch.OpenSession, /) -> OpenedSession:
        """See `ports.LauncherPort`. Raises `MountFailed`, `InvalidState` or `SandboxSetupFailed`."""
        opened, listeners = await self._ask_for_fds(request, launch.Opened)
        return OpenedSession(
            missing=opened.missing, degraded=opened.degraded, listeners=tuple(listeners), folders=opened.folders
        )

    async def make_socket(self, session: str, *, ipv6: bool = False) -> int:
        """See `ports.LauncherPort`. Raises `InvalidState` for a session that is not open, `StartFailed` where there is none to be had."""
        _, fds = await self._ask_for_fds(launch.MakeSocket(id=0, session=session, ipv6=ipv6), launch.SocketMade)
        if len(fds) != 1:
            _close_all(fds)
            raise Unavailable(f"the launcher made a socket and sent {len(fds)} descriptors")
        return fds[0]

    async def close_session(self, session: str, /) -> None:
        await self._ask(launch.CloseSession(id=0, session=session))

    async def spawn(self, request: launch.Spawn, policy: EffectivePolicy, /) -> LaunchedFds:
        for program in (policy.base_filter, policy.admin_filter):
            if program.sha256 not in self._filters:
                await self._put(program)
        return LaunchedFds(*await self._ask_for_fds(request, launch.Spawned))

    async def abandon(self, process: str, /) -> None:
        await self._ask(launch.Abandon(id=0, process=process))

    async def _put(self, program: SeccompProgram) -> None:
        await self._ask(launch.PutFilter(id=0, sha256=program.sha256, bpf=program.bpf))
        self._filters.pop(program.sha256, None)
        self._filters[program.sha256] = None
        if len(self._filters) > launch.FILTER_LIMIT:  # the launcher has let go of the same one
            del self._filters[next(iter(self._filters))]

    async def annotate(self, process: str, note: bytes, /) -> None:
        await self._send(launch.Annotate(id=0, process=process, note=note))

    async def signal(self, process: str, signal: int, /) -> None:
        await self._ask(launch.Signal(id=0, process=process, signal=signal))

    async def kill(self, process: str, /) -> None:
        await self._ask(launch.Kill(id=0, process=process))

    async def forget(self, process: str, /) -> None:
        await self._send(launch.Forget(id=0, process=process))

    async def release(self, process: str, name: str, /) -> None:
        await self._ask(launch.Release(id=0, process=process, name=name))

    async def keep(self, process: str, name: str, fd: int, /) -> None:
        await self._ask(launch.Keep(id=0, process=process, name=name), (fd,))

    async def quit(self) -> None:
        """End every sandbox and the launcher itself, and wait until its guard has gone; it is not connected to again."""
        self._quitting = True
        gone = _open_guard(self.pid)
        try:
            await self._ask(launch.Quit(id=0))
            if gone is not None:
                with trio.move_on_after(_QUIT_S):
                    await trio.lowlevel.wait_readable(gone)
        finally:
            if gone is not None:
                os.close(gone)

    # -- notices ------------------------------------------------------------------------------------------------

    def watch(self, process: str, call: Watcher, /) -> None:
        if self._untaken.was_lost(process):
            call(None)
        else:
            self._watchers[process] = call

    def unwatch(self, process: str, /) -> None:
        self._watchers.pop(process, None)

    @property
    def adopted(self) -> list[tuple[launch.Adopted, SpawnedFds]]:
        return self._untaken.take()

    def carry(self, adopted: launch.Adopted, fds: list[int]) -> None:
        """Hand out, as if a launcher had kept it, a command that ended with the launcher before; before `serve`. `fds` are taken over."""
        self._untaken.carry(adopted, LaunchedFds(adopted.spawned, fds))

    async def wait_adopted(self) -> None:
        """See `ports.LauncherPort`."""
        await self._adoption.wait()
        self._adoption = trio.Event()


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _nothing() -> None:
    """Only the first adoption starts the service."""


def _open_guard(launcher_pid: int | None) -> int | None:
    """A pidfd of the launcher's guard, its parent, readable once that has ended; None where there is none to see."""
    try:
        with open(f"/proc/{launcher_pid}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])
        return os.pidfd_open(parent) if parent not in (0, 1, os.getpid(), os.getppid()) else None
    except (OSError, ValueError, IndexError):
        return None
