"""Descriptors into a process: what a spawn brought, or what the launcher kept over a restart of coworkd.

Rules
- Every descriptor has an owner from the moment it is taken; those nobody takes are closed here.
- A terminal's master is handed to the launcher as soon as it is here, so that a restart does not hang up.
- What was acknowledged of stdin before a restart is not known: the first write after it says where it goes on.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable

from coworkd.config import SpoolConfig
from coworkd.model.errors import CoworkError, SandboxSetupFailed
from coworkd.model.launch import Adopted
from coworkd.model.ports import LauncherPort, SpawnedFds
from coworkd.model.process import OnFull, StreamName
from coworkd.services.process_live import LiveProcess
from coworkd.services.pumps import PipeWatch
from coworkd.services.spools import HeadSpool, Spool
from coworkd.services.stdin import PipeSink, Stdin
from coworkd.services.terminal import NoTerminal, Terminal, receive_master

_PIPES: tuple[StreamName, ...] = ("stdout", "stderr")
_MASTER = "tty_master"

_log = logging.getLogger("coworkd.process")


class Builder:
    """Gives processes their streams. Starts their tasks by `later`."""

    def __init__(self, *, launcher: LauncherPort, limits: SpoolConfig, later: Callable[..., None]) -> None:
        self._launcher = launcher
        self._limits = limits
        self._later = later
        self._pipes = PipeWatch()
        self._null_fd = -1

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

    def build(self, process: LiveProcess, fds: SpawnedFds, *, on_full: OnFull | None) -> None:
        """Give a spawned process its streams and start pumping. Raises `SandboxSetupFailed` where a descriptor is missing."""
        try:
            process.started_at = fds.spawned.at
            if "tty" in fds.spawned.fds:
                spool = self._spool(_need(fds, "tty_spool"), on_full)
                process.streams["tty"] = spool
                process.expect_terminal()
                self._later(self._serve_terminal, process, _need(fds, "tty"), spool)
            else:
                self._build_pipes(process, fds, on_full)
        finally:
            fds.close()
            process.built()

    def _build_pipes(self, process: LiveProcess, fds: SpawnedFds, on_full: OnFull | None) -> None:
        for name in _PIPES:
            fd = _need(fds, f"{name}_spool")
            process.streams[name] = self._head(fd) if process.one_shot else self._spool(fd, on_full)
            process.add_pump(_need(fds, name), process.streams[name]).begin(self._pipes)
        stdin = fds.take("stdin")
        if stdin is not None:
            process.stdin = Stdin(process.id, PipeSink(stdin))

    def adopt(self, process: LiveProcess, adopted: Adopted, fds: SpawnedFds) -> None:
        """Give an adopted process what was kept of it, and tell it what has happened since."""
        try:
            process.started_at = adopted.spawned.at
            for name in (*_PIPES, "tty"):
                spool_fd = fds.take(f"{name}_spool")
                if spool_fd is not None:
                    limit_bytes, on_full = self._limits.stream_bytes, process.note.on_full
                    process.streams[name] = Spool.adopt(spool_fd, limit_bytes=limit_bytes, on_full=on_full)
            self._adopt_sources(process, fds)
        finally:
            fds.close()
        process.built()
        for notice in (adopted.started, adopted.start_error, adopted.exited):
            if notice is not None:
                process.learn(notice)

    def _adopt_sources(self, process: LiveProcess, fds: SpawnedFds) -> None:
        for name, spool in process.streams.items():
            fd = fds.take(_MASTER if name == "tty" else name)
            if fd is None:
                spool.finish()
            elif name == "tty":
                self._later(self._add_terminal(process, fd, spool, offset=None).run)
            else:
                process.add_pump(fd, spool).begin(self._pipes)
        stdin = fds.take("stdin")
        if stdin is not None:
            process.stdin = Stdin(process.id, PipeSink(stdin), offset=None)

    async def _serve_terminal(self, process: LiveProcess, socket_fd: int, spool: Spool) -> None:
        try:
            master = await receive_master(socket.socket(fileno=socket_fd))
        except NoTerminal as error:
            process.terminal_missing(str(error))
            return
        if process.closed:
            os.close(master)
            return
        terminal = self._add_terminal(process, master, spool, offset=0)
        try:
            await self._launcher.keep(process.id, _MASTER, master)
        except CoworkError as error:
            _log.warning("the terminal of %s would not outlive a restart: %s", process.id, error.message)
        await terminal.run()

    def _add_terminal(self, process: LiveProcess, master: int, spool: Spool, *, offset: int | None) -> Terminal:
        terminal = Terminal(process.id, master, spool, process.stream_ended)
        process.set_terminal(terminal, Stdin(process.id, terminal, offset=offset))
        return terminal

    def _spool(self, fd: int, on_full: OnFull | None) -> Spool:
        return Spool(fd, limit_bytes=self._limits.stream_bytes, on_full=on_full)

    def _head(self, fd: int) -> HeadSpool:
        return HeadSpool(fd, limit_bytes=self._limits.stream_bytes, null_fd=self._null_fd)


def _need(fds: SpawnedFds, name: str) -> int:
    fd = fds.take(name)
    if fd is None:
        raise SandboxSetupFailed(f"the launcher sent no descriptor {name}", stage="sandbox_setup")
    return fd
