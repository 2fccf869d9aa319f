"""A fake of `ports.LauncherPort` with real pipes and memfds, whose commands are played by the test.

It keeps to the launcher's contract: it holds copies of every descriptor it sent until `release` or `forget`; notices come in
order and from trio's thread, and may overtake who opens the gate (`early`); living processes are not forgotten; a second
supervisor gets what was kept by `adopted`.
"""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
from collections.abc import Callable
from functools import partial

import trio

from coworkd.model.errors import SandboxSetupFailed, Unavailable
from coworkd.model.launch import Adopted, Exited, Notice, OpenSession, Spawn, Spawned, Started, StartError
from coworkd.model.policy import EffectivePolicy
from coworkd.model.ports import OpenedSession, SpawnedFds
from coworkd.model.process import Rusage
from coworkd.services.launching_adopted import Untaken

RUSAGE = Rusage(
    user_s=0.25,
    system_s=0.5,
    max_rss_bytes=4096,
    minor_faults=1,
    major_faults=2,
    voluntary_switches=3,
    involuntary_switches=4,
)
SPAWNED_AT, STARTED_AT, EXITED_AT = 100.0, 100.5, 101.0


class FakeGate:
    """Implements `ports.CommandGate`."""

    def __init__(self, opened: Callable[[], None]) -> None:
        self._opened = opened
        self._shut = False

    def open(self) -> None:
        assert not self._shut
        self._shut = True
        self._opened()

    def close(self) -> None:
        self._shut = True


class FakeFds:
    """Implements `ports.SpawnedFds`."""

    def __init__(self, spawned: Spawned, fds: dict[str, int], opened: Callable[[], None] = lambda: None) -> None:
        """`opened` is called when the gate is."""
        self._spawned = spawned
        self._fds = fds
        self._opened = opened

    def take_gate(self) -> FakeGate:
        return FakeGate(self._opened)

    @property
    def spawned(self) -> Spawned:
        return self._spawned

    def take(self, name: str, /) -> int | None:
        return self._fds.pop(name, None)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


class FakeCommand:
    """One command, from the inside: it writes, reads, and ends as the test says."""

    def __init__(self, request: Spawn, tell: Callable[[Notice], None]) -> None:
        self.request = request
        self.note = request.note
        self.signals: list[int] = []
        self.on_signal: Callable[[int], None] = lambda number: None
        self.on_kill: Callable[[], None] = lambda: self.exit(signal=signal.SIGKILL, killed=True)
        self.started_notice: Started | None = None
        self.start_error_notice: StartError | None = None
        self.exited_notice: Exited | None = None
        self.held: dict[str, int] = {}
        self._own: dict[str, int] = {}
        self._tell = tell
        self._quiet = False
        self.let_in = False
        if request.tty:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self.held = {"tty": ours.detach(), "tty_spool": os.memfd_create("tty")}
            self._own = {"tty": theirs.detach()}
            return
        for name in ("stdout", "stderr"):
            self.held[name], self._own[name] = os.pipe()
            self.held[f"{name}_spool"] = os.memfd_create(name)
            os.set_blocking(self._own[name], False)
        if request.stdin:
            self._own["stdin"], self.held["stdin"] = os.pipe()
            self.held["stdin_tally"] = os.memfd_create("stdin")
            os.set_blocking(self._own["stdin"], False)

    @property
    def living(self) -> bool:
        return self.exited_notice is None and self.start_error_notice is None

    def start(self, *, quietly: bool = False) -> None:
        """With `quietly` its end brings the news."""
        self.started_notice = Started(
            process=self.request.process, init_pid=11, payload_pid=12, at=STARTED_AT, monitor_pid=10
        )
        self._quiet = quietly
        if not quietly:
            self._tell(self.started_notice)

    def fail(self, stage: str = "not_found", number: int | None = errno.ENOENT) -> None:
        self.close()
        self.start_error_notice = StartError(
            process=self.request.process, stage=stage, errno=number, message=f"no such command ({stage})"
        )
        self._tell(self.start_error_notice)

    def write(self, data: bytes, stream: str = "stdout") -> int:
        """What the pipe took of `data`."""
        try:
            return os.write(self._own[stream], data)
        except BlockingIOError:
            return 0

    def read(self, limit: int = 1 << 20) -> bytes | None:
        """What is in stdin, empty at its end, None where there is nothing."""
        try:
            return os.read(self._own["stdin"], limit)
        except BlockingIOError:
            return None

    def leak(self, stream: str = "stdout") -> int:
        """Another holder of a stream, which outlives the command; the test closes it."""
        return os.dup(self._own[stream])

    def send_master(self, *fds: int) -> None:
        with socket.socket(fileno=os.dup(self._own["tty"])) as link:
            link.sendmsg([b"m"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])

    def close(self, *streams: str) -> None:
        for name in streams or tuple(self._own):
            fd = self._own.pop(name, None)
            if fd is not None:
                os.close(fd)

    def exit(
        self, code: int | None = None, *, signal: int | None = None, killed: bool = False, oom_kills: int = 0
    ) -> None:
        if not self.living:
            return
        self.close()
        self.exited_notice = Exited(
            process=self.request.process,
            code=0 if code is None and signal is None else code,
            signal=signal,
            inferred=False,
            killed=killed,
            oom_kills=oom_kills,
            rusage=RUSAGE,
            at=EXITED_AT,
            started=self.started_notice if self._quiet else None,
        )
        self._tell(self.exited_notice)

    def hand_out(self, request_id: int, opened: Callable[[], None] = lambda: None) -> FakeFds:
        spawned = Spawned(
            id=request_id, process=self.request.process, monitor_pid=10, fds=tuple(self.held), at=SPAWNED_AT
        )
        return FakeFds(spawned, {name: os.dup(fd) for name, fd in self.held.items()}, opened)

    def let_go(self, name: str) -> None:
        fd = self.held.pop(name, None)
        if fd is not None:
            os.close(fd)


class FakeLauncher:
    """Implements `ports.LauncherPort`. `script` plays each command as soon as it is spawned; `close` ends them all."""

    def __init__(self) -> None:
        self.script: Callable[[FakeCommand], None] = FakeCommand.start
        self.early = False
        self.withheld: set[str] = set()
        self.commands: dict[str, FakeCommand] = {}
        self.forgotten: list[str] = []
        self.killed: list[str] = []
        self.refusal: Exception | None = None
        self.before_spawn: Callable[[Spawn], None] = lambda request: None
        self.before_exec: Callable[[str], None] = lambda process: None
        self.abandoned: list[str] = []
        self._watchers: dict[str, Callable[[Notice | None], None]] = {}
        self._adopted: list[tuple[Adopted, SpawnedFds]] = []
        self.untaken = Untaken()
        """What was carried over from another launcher."""
        self._adoption = trio.Event()
        self._lost = False

    @property
    def command(self) -> FakeCommand:
        """The only command there is."""
        (command,) = self.commands.values()
        return command

    @property
    def generation(self) -> int:
        return 1

    @property
    def watched(self) -> set[str]:
        return set(self._watchers)

    async def open_session(self, request: OpenSession, /) -> OpenedSession:
        raise NotImplementedError("the process service opens no sessions")

    async def make_socket(self, session: str, *, ipv6: bool = False) -> int:
        raise NotImplementedError("the process service makes no sockets")

    async def close_session(self, session: str, /) -> None:
        raise NotImplementedError("the process service closes no sessions")

    async def spawn(self, request: Spawn, policy: EffectivePolicy, /) -> SpawnedFds:
        self.before_spawn(request)
        await self._turn()
        if self.refusal is not None:
            raise self.refusal
        command = FakeCommand(request, lambda notice: self._tell(request.process, notice))
        self.commands[request.process] = command
        fds = command.hand_out(len(self.commands), partial(self._let_in, request.process))
        for name in self.withheld:
            os.close(fds.take(name) or -1)
        return fds

    def _let_in(self, process: str) -> None:
        self.before_exec(process)
        command = self.commands.get(process)
        if command is None or not command.living or self._lost:
            return
        command.let_in = True
        if self.early:
            self.script(command)
        else:
            trio.lowlevel.current_trio_token().run_sync_soon(self.script, command)

    async def abandon(self, process: str, /) -> None:
        await self._find(process)
        self._drop(process)
        self.abandoned.append(process)

    async def annotate(self, process: str, note: bytes, /) -> None:
        (await self._find(process)).note = note

    async def signal(self, process: str, number: int, /) -> None:
        command = await self._find(process)
        if not command.living or command.started_notice is None:
            raise SandboxSetupFailed("no such process", errno=errno.ESRCH)
        command.signals.append(number)
        command.on_signal(number)

    async def kill(self, process: str, /) -> None:
        command = await self._find(process)
        self.killed.append(process)
        command.on_kill()

    async def forget(self, process: str, /) -> None:
        command = await self._find(process)
        if command.living:
            raise SandboxSetupFailed("the command still runs", errno=errno.EBUSY)
        self._drop(process)
        self.forgotten.append(process)

    async def release(self, process: str, name: str, /) -> None:
        (await self._find(process)).let_go(name)

    async def keep(self, process: str, name: str, fd: int, /) -> None:
        (await self._find(process)).held[name] = os.dup(fd)

    def watch(self, process: str, call: Callable[[Notice | None], None], /) -> None:
        assert process not in self._watchers
        if self.untaken.was_lost(process):
            call(None)
            return
        self._watchers[process] = call

    def unwatch(self, process: str, /) -> None:
        self._watchers.pop(process, None)

    @property
    def adopted(self) -> list[tuple[Adopted, SpawnedFds]]:
        taken, self._adopted = self._adopted, []
        return [*taken, *self.untaken.take()]

    async def wait_adopted(self) -> None:
        await self._adoption.wait()
        self._adoption = trio.Event()

    def change_supervisor(self) -> None:
        """The supervisor has gone, and a new one asks for what was kept."""
        self._adoption.set()
        self._watchers.clear()
        for command in self.commands.values():
            fds = command.hand_out(0)
            adopted = Adopted(
                id=0,
                process=command.request.process,
                session=command.request.session,
                argv=command.request.argv,
                spawned=fds.spawned,
                started=command.started_notice,
                start_error=command.start_error_notice,
                exited=command.exited_notice,
                note=command.note,
                let_in=command.let_in,
            )
            self._adopted.append((adopted, fds))

    def reconnect(self) -> None:
        """The connection broke, but the launcher lived: its commands run on, and are offered again."""
        for call in list(self._watchers.values()):
            call(None)
        self.change_supervisor()

    def lose(self) -> None:
        """The launcher dies, and every command with it."""
        self._lost = True
        for command in self.commands.values():
            command.close()
        for call in list(self._watchers.values()):
            call(None)

    def found(self) -> None:
        """There is another one in its place, which knows nothing."""
        self._lost = False

    def close(self) -> None:
        for process in list(self.commands):
            self._drop(process)
        for _, fds in self.adopted:
            fds.close()

    def _drop(self, process: str) -> None:
        command = self.commands.pop(process)
        command.close()
        for name in list(command.held):
            command.let_go(name)

    def _tell(self, process: str, notice: Notice) -> None:
        call = self._watchers.get(process)
        if call is not None:
            call(notice)

    async def _find(self, process: str) -> FakeCommand:
        await self._turn()
        command = self.commands.get(process)
        if command is None:
            raise SandboxSetupFailed(f"no process {process!r}", errno=errno.ESRCH)
        return command

    async def _turn(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._lost:
            raise Unavailable("the launcher has gone")
