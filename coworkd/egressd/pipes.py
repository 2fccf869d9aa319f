"""The pipes through which tunnels are spliced: few, shared, and borrowed only while bytes are in them.

A pump fills a pipe with no more than its destination takes, so that between two turns of the loop the pool has nearly all its pipes.
Where a destination took less after all, the direction holds its pipe until the rest has gone: at most `_SHARE` big ones a session, and
`_FEW` once `_SCARCE` are held in all, so that one session's stalls do not take another's rate; past that a direction gets a pipe of the
default size. Without CAP_SYS_RESOURCE a uid's pipes may hold 64 MiB (pipe-user-pages-soft) before each new one has 8 KiB, and before
F_SETPIPE_SZ fails: the pool's big ones take a quarter of it.

Sources: pipe(7), fs/pipe.c (`too_many_pipe_buffers_soft`).
"""

from __future__ import annotations

import contextlib

from coworkd.egressd.loop import close_quietly
from coworkd.system import splice

BIG_BYTES = 256 * 1024
"""A quarter more than the rate of the default's 64 KiB; more brings no more."""
TURN_BYTES = 1024 * 1024
_LEAST_BYTES = 32 * 1024
_RISE = 2
_BIG_LIMIT = 64
_SCARCE = 48
_SHARE = 16
_FEW = 4
_IDLE_SMALL_LIMIT = 32


class Share:
    """What one session has of what all share: big pipes that its stalled directions hold, and bytes a turn.

    A direction may move `allowance` bytes in a turn. Where all of them together moved more than `TURN_BYTES` in the turn before, each may
    move less in this one, so that a session with many busy tunnels gets no more than one with a single one.
    """

    __slots__ = ("_allowance", "_moved", "_turn", "big")

    def __init__(self) -> None:
        self.big = 0
        self._allowance = TURN_BYTES
        self._moved = 0
        self._turn = 0

    def allowance(self, turn: int) -> int:
        """What one direction may move in this turn."""
        if turn != self._turn:
            much = self._moved * _RISE > TURN_BYTES
            wanted = self._allowance * TURN_BYTES // self._moved if much else self._allowance * _RISE
            self._allowance = max(_LEAST_BYTES, min(wanted, TURN_BYTES))
            self._moved, self._turn = 0, turn
        return self._allowance

    def count(self, moved: int) -> None:
        """So much was moved in the turn of the last `allowance`."""
        self._moved += moved


class Pipe:
    """An empty pipe, until it is filled; belongs to the pool."""

    __slots__ = ("big", "read", "write")

    def __init__(self, read: int, write: int, *, big: bool) -> None:
        self.read = read
        self.write = write
        self.big = big


class PipePool:
    """Owns every pipe. `borrow`, then either `give_back` (empty), or `hold` and later `let_go`; `discard` one with bytes in it."""

    def __init__(self) -> None:
        self._idle_big: list[Pipe] = []
        self._idle_small: list[Pipe] = []
        self._big = 0
        self._small = 0
        self._held_big = 0
        with contextlib.suppress(
            OSError
        ):  # made while there are descriptors: the common case then never needs a new one
            self.give_back(self._make_big())

    @property
    def open_count(self) -> int:
        """How many pipes there are."""
        return self._big + self._small

    @property
    def held_big(self) -> int:
        """How many big ones stalled directions hold."""
        return self._held_big

    def borrow(self, share: Share) -> Pipe:
        """An empty pipe. Raises `OSError` (EMFILE, ENFILE) where there is none to be had."""
        if share.big < (_SHARE if self._held_big < _SCARCE else _FEW):
            if self._idle_big:
                return self._idle_big.pop()
            if self._big < _BIG_LIMIT:
                return self._make_big()
        if self._idle_small:
            return self._idle_small.pop()
        pipe = Pipe(*splice.open_pipe(), big=False)
        self._small += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """An empty pipe is for the next."""
        if pipe.big:
            self._idle_big.append(pipe)
        elif len(self._idle_small) < _IDLE_SMALL_LIMIT:
            self._idle_small.append(pipe)
        else:
            self.discard(pipe)

    def hold(self, pipe: Pipe, share: Share) -> None:
        """A direction stalls with bytes in the pipe."""
        if pipe.big:
            share.big += 1
            self._held_big += 1

    def let_go(self, pipe: Pipe, share: Share) -> None:
        """The opposite of `hold`."""
        if pipe.big:
            share.big -= 1
            self._held_big -= 1

    def discard(self, pipe: Pipe) -> None:
        """Close one that may have bytes in it."""
        close_quietly(pipe.read)
        close_quietly(pipe.write)
        if pipe.big:
            self._big -= 1
        else:
            self._small -= 1

    def trim(self) -> None:
        """Close the idle ones but one; now and then, for what a rush has made."""
        while len(self._idle_big) > 1:
            self.discard(self._idle_big.pop())
        while self._idle_small:
            self.discard(self._idle_small.pop())

    def close(self) -> None:
        """Close the idle ones."""
        for pipe in (*self._idle_big, *self._idle_small):
            self.discard(pipe)
        self._idle_big.clear()
        self._idle_small.clear()

    def _make_big(self) -> Pipe:
        pipe = Pipe(*splice.open_pipe(BIG_BYTES), big=True)
        self._big += 1
        return pipe
