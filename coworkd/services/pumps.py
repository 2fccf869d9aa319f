"""Pumps: from the pipes of commands into their spools, all of them turned by one task.

Rules
- A pipe is in the kernel's set of those that are watched (epoll) while its spool has room, and in none while it has not: a full spool
  stops its own command and costs nobody a turn.
- A turn takes from a few pipes, and from each as much as a full one holds: between two turns everybody else has one, so however many
  commands flood theirs, an answer waits for some milliseconds at most. Pipes take turns too.
- What nobody reads rests between its turns, be it a flood or a word at a time, and so does a flood that goes past a reader who has
  stopped. Every `REST_S` some of those that rest have a turn, one after the other, as many as took what a full pipe holds the last time.
  So all of them together move about 100 MiB/s and wait for more, and the loop and the processors are the others'. Beside others at work,
  which is much output that is read or a command that starts, they pass `PASSES` of these: about 20 MiB/s, for every turn takes time, and
  what the caches hold, of those who wait for something. One rests no longer once somebody reads it, or its command has ended: many that
  rest make a long turn.
- What is there is taken at once where somebody asks for it (`take`): at the exit of a command nobody waits for a turn.

It starts no task: whoever has a `PipeWatch` lets it `serve`. All calls are made from trio's thread. Sources: epoll(7), pipe(7).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

import trio

from coworkd.services.spools import PIPE_BYTES, Spool
from coworkd.system import spool_file

_USUAL_PIPE_BYTES = 64 * 1024
_READY_AT_ONCE = 4
"""So many pipes of a turn. The kernel tells of those that were told last once it has told of all others (epoll_wait(2))."""
REST_S = 0.01
PASSES = 4
_SMALL_BYTES = 256 * 1024
"""A spool that keeps less is full before its pipe is empty, and is filled several times then."""


class PipeWatch:
    """Calls back for every pipe that has something, or has ended. Owns its epoll from `open` to `close`."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._calls: dict[int, Callable[[], None]] = {}
        self._resting: dict[int, tuple[Callable[[], None], int]] = {}
        """Those whose turn comes one after the other, with what they took in their last; the first at `_wake_at`."""
        self._wake_at = 0.0
        self._others_work = False
        """Somebody else had something to do since then."""
        self._passed = 0

    def open(self) -> None:
        """Raises `OSError`."""
        self._epoll = select.epoll()

    def close(self) -> None:
        """Nobody is called any more. Idempotent."""
        if self._epoll is not None:
            trio.lowlevel.notify_closing(self._epoll)
            self._epoll.close()
            self._epoll = None
        self._calls.clear()
        self._resting.clear()

    async def serve(self) -> None:
        """Call back until cancelled or `close`."""
        try:
            while (epoll := self._epoll) is not None:
                if self._resting:
                    with trio.move_on_at(self._wake_at):
                        await trio.lowlevel.wait_readable(epoll)
                    self._wake_some()
                else:
                    await trio.lowlevel.wait_readable(epoll)
                if self._epoll is None:  # closed when there was something already
                    return
                for fd, _ in epoll.poll(0, _READY_AT_ONCE):
                    call = self._calls.get(fd)
                    if call is not None:  # one called before may have let it go
                        call()
        except trio.ClosedResourceError:
            return

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Call from now on, again and again while there is something; one that rests does so no longer. Nothing to do after `close`.
        Raises `OSError` where epoll takes no more, and changes nothing.
        """
        if self._epoll is not None and fd not in self._calls:
            self._epoll.register(fd, select.EPOLLIN)
            self._calls[fd] = call
        self._resting.pop(fd, None)

    def remove(self, fd: int) -> None:
        """Call no more, which is to be said before the pipe is closed; one that is not there is passed over."""
        self._resting.pop(fd, None)
        if self._calls.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def rest(self, fd: int, taken: int) -> None:
        """Call for `fd`, which just gave `taken` bytes, again when those that rest already had their turns. To be said from within its
        call.
        """
        call = self._calls.get(fd)
        if call is not None:
            self.remove(fd)
            if not self._resting:
                self._wake_at = trio.current_time() + REST_S
            self._resting[fd] = call, taken

    def others_work(self) -> None:
        """Somebody has something to do that is waited for: those that rest do so somewhat longer."""
        self._others_work = True

    def _wake_some(self) -> None:
        now = trio.current_time()
        if not self._resting or now < self._wake_at:
            return
        self._wake_at = now + REST_S
        if self._others_work and self._passed < PASSES:
            self._others_work = False
            self._passed += 1
            return
        self._others_work, self._passed = False, 0
        left_bytes = PIPE_BYTES
        while self._resting and left_bytes > 0:
            fd = next(iter(self._resting))
            call, taken = self._resting[fd]
            try:
                self.add(fd, call)
            except OSError:  # no memory for it at present: they rest on
                return
            left_bytes -= max(_USUAL_PIPE_BYTES, taken)  # little costs a call, too


class Pump:
    """Moves a pipe into a spool until the pipe ends. Owns the pipe's read end."""

    __slots__ = ("_ended", "_failed", "_fd", "_given", "_large", "_rests", "_watch", "spool")

    def __init__(
        self, pipe_fd: int, spool: Spool, *, ended: Callable[[], None], failed: Callable[[OSError], None]
    ) -> None:
        """`ended` is called once, when the pipe has given its last byte. `failed` is called once where the file takes no more: the
        spool is cut then, and what comes is thrown away; and where the pipe cannot be read at all, which is let go then. Neither
        comes after `close`.
        """
        self.spool = spool
        self._fd = pipe_fd
        self._ended = ended
        self._failed = failed
        self._large = False
        self._rests = True
        self._given = 0
        """How far somebody had been given it at its last turn."""
        self._watch: PipeWatch | None = None

    def begin(self, watch: PipeWatch) -> None:
        """Take what comes, from now on, until the end or `close`."""
        self._watch = watch
        self._go_on()

    def take(self) -> None:
        """Take what is there now, without waiting, and what comes after it without a rest."""
        self._rests = False
        self._take()
        self._go_on()

    def _take(self) -> None:
        if self._fd < 0 or self.spool.eof:
            return
        try:
            taken = self.spool.fill_from(self._fd)
        except OSError as error:
            self._cut(error)
            return
        if taken >= _USUAL_PIPE_BYTES and not self._large:
            self._enlarge()
        if self.spool.eof:
            self.close()
            self._ended()
        elif self._watch is not None and not self.spool.room():
            self._watch.remove(self._fd)
            self.spool.when_room(self._go_on)

    def _turn(self) -> None:
        before = self.spool.total
        self._take()
        if self._fd < 0 or self._watch is None:
            return
        taken = self.spool.total - before
        if self._is_read(taken):
            if taken >= _USUAL_PIPE_BYTES:
                self._watch.others_work()
        elif self._rests and not self.spool.limit_bytes <= taken < _SMALL_BYTES:
            self._watch.rest(self._fd, taken)
            self.spool.when_room(self._go_on)  # for whoever begins to read it, or goes on

    def _is_read(self, taken: int) -> bool:
        """Whether somebody waits for it. Who lets a flood that does not wait for him pass by, and reads nothing of it, does not."""
        given, self._given = self._given, self.spool.given
        if not self.spool.followed:
            return False
        return taken < _USUAL_PIPE_BYTES or self.spool.blocking or self.spool.given > given

    def pipe_bytes(self) -> int:
        """How much may still lie in the pipe."""
        return spool_file.pipe_bytes(self._fd) if self._fd >= 0 else 0

    def close(self) -> None:
        """Let the pipe go. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if self._watch is not None:
                self._watch.remove(fd)
            os.close(fd)
            self.spool.finish()

    def _go_on(self) -> None:
        if self._fd < 0 or self._watch is None or self.spool.eof:
            return
        if not self.spool.room():
            self.spool.when_room(self._go_on)
            return
        try:
            self._watch.add(self._fd, self._turn)
        except OSError as error:  # epoll takes no more: ENOMEM, or its limit of watches
            self._fail(error)

    def _cut(self, error: OSError) -> None:
        """The file takes no more, and the command must not wait for it. Where the pipe itself cannot be read either, it is let go."""
        if self.spool.cut_at is not None:
            self._fail(error)
            return
        try:
            self.spool.cut()
        except OSError:  # no descriptor left: tried again with the next turn
            return
        self._failed(error)

    def _fail(self, error: OSError) -> None:
        self.spool.lost = True
        self.close()
        self._failed(error)

    def _enlarge(self) -> None:
        self._large = True
        try:
            spool_file.set_pipe_bytes(self._fd, PIPE_BYTES)
        except OSError:  # past the uid's share of pipe pages, or no memory for it
            self._rests = False  # as it is it fills too soon for a rest
