"""Descriptors into a process: what a spawn brought, or what the launcher kept over a restart of coworkd.

Rules
- Every descriptor has an owner from the moment it is taken; those nobody takes are closed here.
- A terminal's master is handed to the launcher as soon as it is here, and until that has it, it stays in the socket it came by, which the
  launcher has as well: so a restart never hangs up.
- A spool on the session disk is handed to the launcher likewise, and only then filled.
- How much of stdin was taken before a restart is known; of a terminal's input it is not: the first write after it says where it goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from functools import partial

from coworkd.config import SpoolConfig
from coworkd.model.errors import CoworkError, SandboxSetupFailed, StartFailed
from coworkd.model.launch import Adopted
from coworkd.model.ports import LauncherPort, SpawnedFds
from coworkd.model.process import StreamName
from coworkd.services.process_gate import Gate
from coworkd.services.process_live import LiveProcess
from coworkd.services.pumps import PipeWatch
from coworkd.services.spools import HeadSpool, Spool, SpoolBudget
from coworkd.services.spools_disk import DiskSpool
from coworkd.services.stdin import ClosedSink, PipeSink, Stdin, Tally
from coworkd.services.terminal import NoTerminal, Terminal, drop_message, receive_master
from coworkd.system import spool_file

_PIPES: tuple[StreamName, ...] = ("stdout", "stderr")
_MASTER = "tty_master"
_NO_DESCRIPTORS = (
    "coworkd has no descriptor left for the command's output: end some commands or links, or raise its limit"
    " (LimitNOFILE=), and try again"
)

_log = logging.getLogger("coworkd.process")


class Builder:
    """Gives processes their streams. Starts their tasks by `later`."""

    def __init__(self, *, launcher: LauncherPort, limits: SpoolConfig, later: Callable[..., None]) -> None:
        self._launcher = launcher
        self._limits = limits
        self._later = later
        self._pipes = PipeWatch()
        self._budget = SpoolBudget(limits.total_bytes)
        self._null_fd = -1

    @property
    def budget(self) -> SpoolBudget:
        """Of all spools in memory."""
        return self._budget

    def open(self) -> None:
        """Open /dev/null for what a one-shot does not keep, and the watch over pipes; `close` closes both."""
        self._null_fd = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self._pipes.open()

    async def serve(self) -> None:
        """Pump what commands write, until cancelled."""
        await self._pipes.serve()

    def close(self) -> None:
        """For when no process has a stream any more."""
        self._pipes.close()
        os.close(self._null_fd)

    def build(self, process: LiveProcess, fds: SpawnedFds) -> None:
        """Give a spawned process its streams and start pumping. Raises `StartFailed` where no descriptor is left, `SandboxSetupFailed`
        where one is missing otherwise.
        """
        try:
            if not fds.spawned.fds:
                raise StartFailed(_NO_DESCRIPTORS, stage="resources", errno=errno.EMFILE)
            process.started_at, process.monitor_pid = fds.spawned.at, fds.spawned.monitor_pid
            self._pipes.others_work()
            if "tty" in fds.spawned.fds:
                spool = self._spool(process, _need(fds, "tty_spool"))
                process.streams["tty"] = spool
                process.expect_terminal()
                self._later(self._receive_terminal, process, _need(fds, "tty"), spool, 0)
            else:
                self._build_pipes(process, fds)
        finally:
            fds.close()
            process.built()

    def _build_pipes(self, process: LiveProcess, fds: SpawnedFds) -> None:
        for name in _PIPES:
            fd = _need(fds, f"{name}_spool")
            if name in process.disk_files:
                os.close(fd)
                self._build_on_disk(process, name, _need(fds, name))
                continue
            process.streams[name] = self._head(fd) if process.one_shot else self._spool(process, fd)
            pump = process.add_pump(_need(fds, name), process.streams[name])
            if process.one_shot:
                process.when_started(partial(pump.begin, self._pipes))
            else:
                pump.begin(self._pipes)
        self._give_stdin(process, fds)

    def _give_stdin(self, process: LiveProcess, fds: SpawnedFds) -> None:
        if "stdin_tally" in fds.spawned.fds:
            tally, fd = Tally(_need(fds, "stdin_tally")), fds.take("stdin")
            sink = ClosedSink(tally) if fd is None else PipeSink(fd, tally)
            process.stdin = Stdin(process.id, sink, offset=tally.taken, doubtful=tally.taken is None)
            if fd is None:  # before a restart
                process.stdin.close()

    def _build_on_disk(self, process: LiveProcess, name: StreamName, pipe_fd: int) -> None:
        spool = DiskSpool(
            process.disk_files.pop(name),
            limit_bytes=self._limit(process),
            on_full=process.note.on_full,
            later=self._later,
        )
        process.streams[name] = spool

        async def may_begin() -> None:
            try:
                await self._launcher.keep(process.id, _on_disk(name), spool.fileno())
            except CoworkError as error:
                _log.warning("the kept %s of %s would not outlive a restart: %s", name, process.id, error.message)
            await process.settled.wait()

        self._later(process.add_disk_pump(pipe_fd, spool).run, may_begin)

    def adopt(
        self, process: LiveProcess, adopted: Adopted, fds: SpawnedFds, *, hold: Callable[[LiveProcess], None]
    ) -> None:
        """Give an adopted process what was kept of it, and tell it what has happened since. `hold` is called when its streams are there and
        nothing was taken into them yet.
        """
        try:
            process.started_at, process.monitor_pid = adopted.spawned.at, adopted.spawned.monitor_pid
            process.gate = Gate(opened=adopted.let_in)
            for name in (*_PIPES, "tty"):
                disk_fd, memory_fd = fds.take(_on_disk(name)), fds.take(f"{name}_spool")
                if disk_fd is not None:
                    process.streams[name] = DiskSpool(
                        disk_fd,
                        limit_bytes=self._limit(process),
                        on_full=process.note.on_full,
                        first=min(spool_file.first_kept(disk_fd), spool_file.end(disk_fd)),
                        later=self._later,
                    )
                    if memory_fd is not None:
                        os.close(memory_fd)
                elif memory_fd is not None:
                    process.streams[name] = Spool.adopt(
                        memory_fd, limit_bytes=self._limit(process), on_full=process.note.on_full, budget=self._budget
                    )
            hold(process)
            self._adopt_sources(process, fds)
        finally:
            fds.close()
        process.built()
        for notice in (adopted.started, adopted.start_error, adopted.exited):
            if notice is not None:
                process.learn(notice)

    def _adopt_sources(self, process: LiveProcess, fds: SpawnedFds) -> None:
        for name, spool in process.streams.items():
            if name == "tty":
                self._adopt_terminal(process, fds, spool)
            elif (fd := fds.take(name)) is None:
                spool.finish()
            elif isinstance(spool, DiskSpool):
                self._later(process.add_disk_pump(fd, spool).run, process.settled.wait)
            else:
                process.add_pump(fd, spool).begin(self._pipes)
        self._give_stdin(process, fds)

    def _adopt_terminal(self, process: LiveProcess, fds: SpawnedFds, spool: Spool) -> None:
        if (master := fds.take(_MASTER)) is not None:
            self._later(self._add_terminal(process, master, spool, offset=None).run)
        elif (link := fds.take("tty")) is not None:
            process.expect_terminal()
            self._later(self._receive_terminal, process, link, spool, None)
        else:
            spool.finish()

    async def _receive_terminal(self, process: LiveProcess, link_fd: int, spool: Spool, offset: int | None) -> None:
        """Wait for the terminal on `link_fd`, and serve it to its end."""
        with socket.socket(fileno=link_fd) as link:
            try:
                master = await receive_master(link)
            except NoTerminal as error:
                process.terminal_missing(str(error))
                return
            if process.closed:
                os.close(master)
                return
            terminal = self._add_terminal(process, master, spool, offset=offset)
            try:
                await self._launcher.keep(process.id, _MASTER, master)
                drop_message(link)
            except CoworkError as error:
                _log.warning("the launcher does not keep the terminal of %s: %s", process.id, error.message)
        await terminal.run()

    def _add_terminal(self, process: LiveProcess, master: int, spool: Spool, *, offset: int | None) -> Terminal:
        terminal = Terminal(process.id, master, spool, process.stream_ended)
        process.set_terminal(terminal, Stdin(process.id, terminal, offset=offset))
        return terminal

    def _limit(self, process: LiveProcess) -> int:
        return process.note.spool_bytes or self._limits.stream_bytes

    def _spool(self, process: LiveProcess, fd: int) -> Spool:
        return Spool(fd, limit_bytes=self._limit(process), on_full=process.note.on_full, budget=self._budget)

    def _head(self, fd: int) -> HeadSpool:
        return HeadSpool(fd, limit_bytes=self._limits.stream_bytes, null_fd=self._null_fd, budget=self._budget)


def _on_disk(name: StreamName) -> str:
    return f"{name}_disk"


def _need(fds: SpawnedFds, name: str) -> int:
    fd = fds.take(name)
    if fd is None:
        raise SandboxSetupFailed(f"the launcher sent no descriptor {name}", stage="sandbox_setup")
    return fd
