"""A machine that VZ runs, as its back end sees it: the process that owns VZ's objects, the link to it, and how it ended.

Rules
- `run` owns the process: cancelled, it kills and reaps it. VZ's guest does not outlive it.
- Once VZ said that the guest has ended, the process has `EXIT_S` to end by itself; so it has after a kill that VZ accepted, or did not.
- A panicked guest is ended: VZ would let it stand for ever, or restart it unseen.
- Its output is read, and the last 16 KiB are kept as the reason of an end nobody announced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable

import trio

from host_stub.vz import words
from host_stub.vz.hybrid import GuestConnection, Hybrid, stream_from
from host_stub.vz.link import ProcessLink
from host_stub.words import Ended, Trouble

EXIT_S = 5.0
PANIC_S = 0.5
"""For the rest of the kernel's last words; a kernel told `panic=1` would begin anew after 1 s."""
LAST_WORDS_S = 2.0
"""For what the process sent and said, once it has ended."""
KEPT_BYTES = 16 << 10


async def spawn(command: list[str], control_fd: int) -> trio.Process:
    """The process, with the control socket and nothing else of ours. Raises Trouble `cannot_start`."""
    try:
        return await trio.lowlevel.open_process(
            [*command, "--control", str(control_fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(control_fd,),
            start_new_session=True,
        )
    except OSError as error:
        raise Trouble(
            "cannot_start", f"{command[0]} cannot be started: {error.strerror}", remedy="install coworkd anew"
        ) from error


class VzMachine:
    """What `Backend.start` gives. `notes` are sentences a person should read."""

    def __init__(self, process: trio.Process, control: socket.socket, on_wake: Callable[[], None] | None) -> None:
        self._process = process
        self._on_wake = on_wake
        self._nursery: trio.Nursery | None = None
        self._said = bytearray()
        self._panicked = False
        self._killed = False
        self._stopped: words.Stopped | None = None
        self._stopping = trio.Event()
        self._heard = trio.Event()
        self._exited = trio.Event()
        self._ended: Ended | None = None
        self._done = trio.Event()
        self.link = ProcessLink(control, self._see)
        self.hybrid = Hybrid(self._connect)
        self.notes: tuple[str, ...] = ()
        self.console_ended = trio.Event()

    # -- Running ------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> Ended:
        await self._done.wait()
        assert self._ended is not None
        return self._ended

    async def request_stop(self) -> None:
        await self.link.ask(words.RequestStop(id=0), words.Done)

    async def kill(self) -> None:
        """By VZ, so that its disks are closed; by SIGKILL where VZ does not do it."""
        self._killed = self._killed or self._stopped is None
        with trio.move_on_after(EXIT_S), contextlib.suppress(Trouble):
            await self.link.ask(words.Kill(id=0), words.Done)
        self._stopping.set()
        await self._done.wait()

    async def pause(self) -> None:
        await self.link.ask(words.Pause(id=0), words.Done)

    async def resume(self) -> None:
        await self.link.ask(words.Resume(id=0), words.Done)

    # -- beyond it ----------------------------------------------------------------------------------------------

    async def set_memory(self, target_bytes: int) -> None:
        """Ask the guest's balloon to leave it this much. Raises Trouble."""
        await self.link.ask(words.SetMemory(id=0, target_bytes=target_bytes), words.Done)

    def see_panic(self) -> None:
        """The console showed that the kernel has panicked."""
        self._panicked = True
        if self._nursery is not None:
            self._nursery.start_soon(self._end_panicked)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the process until it has ended and was reaped."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._listen_to_output)
                nursery.start_soon(self.link.serve)
                nursery.start_soon(self._let_it_end)
                task_status.started()
                await self._process.wait()
                # What it sent and said before it ended is still on its way, and both end by themselves.
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_S
                await self.link.ended.wait()
                await self._heard.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self.link.close()
            with trio.CancelScope(shield=True):
                self._kill_process()
                await self._process.wait()
            self._exited.set()

    async def until_ended(self) -> None:
        """Until the process is no more."""
        await self._exited.wait()

    def finish(self) -> None:
        """Everything of it has ended: say how."""
        self._ended = self._how()
        self._done.set()

    def last_words(self, count: int = 5) -> str:
        """What the process said last, for a person."""
        lines = [line for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        return "\n".join(lines[-count:])

    # -- inside -------------------------------------------------------------------------------------------------

    def _see(self, news: words.Message, fds: list[int]) -> None:
        if isinstance(news, words.Incoming) and self._nursery is not None:
            guest = self._connection(fds[0], 0, news.connection)
            self._nursery.start_soon(self.hybrid.relay_incoming, guest, stream_from(fds[1]))
            return
        for fd in fds:
            os.close(fd)
        if isinstance(news, words.Stopped):
            self._stopped = news
            self._stopping.set()
        elif isinstance(news, words.Woke) and self._on_wake is not None:
            self._on_wake()

    async def _connect(self, port: int) -> GuestConnection:
        answer, fds = await self.link.ask(words.Connect(id=0, port=port), words.Connected)
        return self._connection(fds[0], answer.local_port, answer.connection)

    def _connection(self, fd: int, local_port: int, number: int) -> GuestConnection:
        return GuestConnection(fd, local_port, lambda: self.link.release_nowait(number))

    async def _end_panicked(self) -> None:
        await trio.sleep(PANIC_S)
        with trio.move_on_after(EXIT_S), contextlib.suppress(Trouble):
            await self.link.ask(words.Kill(id=0), words.Done)
        self._stopping.set()

    async def _let_it_end(self) -> None:
        await self._stopping.wait()
        await trio.sleep(EXIT_S)
        self._kill_process()

    async def _listen_to_output(self) -> None:
        output = self._process.stdout
        assert output is not None
        async with output:
            while data := await output.receive_some(4096):
                self._said += data
                del self._said[:-KEPT_BYTES]
        self._heard.set()

    def _kill_process(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _how(self) -> Ended:
        status = self._process.returncode
        if self._panicked:
            return Ended(how="panicked", message="the guest's kernel panicked", exit_status=status)
        if self._killed:
            return Ended(how="killed", message="it was ended from here", exit_status=status)
        if self._stopped is not None and self._stopped.error:
            return Ended(how="failed", message=self._stopped.error, exit_status=status)
        if self._stopped is not None:
            return Ended(how="powered_off", message="the guest powered itself off", exit_status=status)
        said = self.last_words() or "it said nothing"
        return Ended(how="failed", message=f"the process of the machine ended ({status}): {said}", exit_status=status)
