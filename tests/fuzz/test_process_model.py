"""The process service against a model, over a launcher whose commands are played: thousands of orders of calls on a clock of their own.

The steps are data, played inside trio; hypothesis makes them, and makes a failing list of them short. The supervisor may change at any
step. What may never be: a stream with a gap or a byte twice, an exit that is told twice or not at all, a `wait` that does not end, a
descriptor that stays.
"""

from __future__ import annotations

import itertools
import signal
from typing import NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coworkd.model import calls
from coworkd.model.errors import CoworkError, DeadlineExceeded, InvalidState, NotFound
from coworkd.model.names import OsBytes
from coworkd.model.process import Exit
from coworkd.services.processes import Processes
from tests.fuzz.budget import SECONDS
from tests.unit.services.fake_launcher import FakeCommand
from tests.unit.services.process_house import FakeLink, House, Output, open_house, settle

EXAMPLES = max(20, round(SECONDS * 0.7))
_KILLED = Exit(code=None, signal="KILL", reason="killed")
_VERBS = (
    "start",
    "write",
    "say",
    "exit",
    "signal",
    "kill",
    "attach",
    "detach",
    "cut",
    "wait",
    "forget",
    "close",
    "restart",
)
_weighed = st.sampled_from([verb for verb in _VERBS for _ in range(1 if verb == "restart" else 4)])


class Step(NamedTuple):
    verb: str
    which: int
    size: int


_steps = st.lists(st.builds(Step, _weighed, st.integers(0, 3), st.integers(0, 6000)), max_size=40)


class Known:
    """What is known of one process. Each has a link of its own."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.link = FakeLink()
        self.said = bytearray()
        self.written = 0
        self.closed = False
        self.end: Exit | None = None
        self.first: int | None = 0
        """Where its link was attached; None where it is not."""
        self.got = bytearray()
        self.exits = 0

    def attached(self, first: int | None) -> None:
        self.first, self.got, self.exits = first, bytearray(), 0

    def pull(self) -> None:
        """What the link gets now, held against what was said."""
        for frame in self.link.pull():
            assert self.first is not None, "a link that is not attached got something"
            if not isinstance(frame, Output):
                self.exits += 1
                assert self.exits == 1, "an exit was told twice"
            elif frame.stream == "stdout":
                assert self.exits == 0, "output came behind the exit"
                assert frame.offset == self.first + len(self.got), "a gap, or bytes twice"
                self.got += frame.data
                assert self.got == self.said[self.first : self.first + len(self.got)]


class Model:
    """Plays steps on a house; `play` is over when nothing can happen any more."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._known: list[Known] = []
        self._numbers = itertools.count(1)

    async def play(self, step: Step) -> None:
        if step.verb == "start":
            await self._start()
        elif step.verb == "restart":
            await self._restart()
        elif self._known:
            known = self._known[step.which % len(self._known)]
            await getattr(self, f"_{step.verb}")(known, step.size)
        await settle()
        for known in self._known:
            known.pull()

    async def conclude(self) -> None:
        """All that was said has come to who is attached, and every end is known."""
        for known in self._known:
            if known.first is not None:
                assert known.got == known.said[known.first :]
                assert known.exits == (known.end is not None)
            await self._kill(known, 0)
        await settle()
        for known in self._known:
            record = await self._processes.wait(calls.WaitProcess(process=known.id, timeout_s=1))
            assert (record.exit, record.bytes["stdout"]) == (known.end, len(known.said))

    @property
    def _processes(self) -> Processes:
        return self._house.processes

    def _command(self, known: Known) -> FakeCommand:
        return self._house.launcher.commands[known.id]

    async def _start(self) -> None:
        known = Known(f"p{next(self._numbers)}")
        params = calls.ProcessStart(session="work", argv=[OsBytes(b"cat")], id=known.id, stdin="pipe")
        await self._processes.start(params, known.link)
        self._known.append(known)

    async def _restart(self) -> None:
        for known in self._known:
            known.link.close()
        await self._house.restart()
        for known in self._known:
            known.link = FakeLink("again")
            known.attached(None)

    async def _write(self, known: Known, size: int) -> None:
        params = calls.WriteStdin(process=known.id, offset=known.written, data=b"i" * size)
        try:
            known.written = (await self._processes.write_stdin(params)).offset
        except CoworkError:
            assert known.closed or known.end is not None
            return
        await settle()
        if known.end is None:
            self._command(known).read()

    async def _say(self, known: Known, size: int) -> None:
        if known.end is None:
            data = bytes((len(known.said) + number) % 251 for number in range(size))
            known.said += data[: self._command(known).write(data)]

    async def _exit(self, known: Known, size: int) -> None:
        if known.end is None:
            self._command(known).exit(size % 256)
            known.end = Exit(code=size % 256, signal=None, reason="exited")

    async def _signal(self, known: Known, _: int) -> None:
        signalling = calls.SignalProcess(process=known.id, signal="USR1")
        if known.end is not None:
            with pytest.raises(InvalidState):
                await self._processes.signal(signalling)
            return
        await self._processes.signal(signalling)
        assert self._command(known).signals.pop() == signal.SIGUSR1

    async def _kill(self, known: Known, _: int) -> None:
        await self._processes.kill(calls.KillProcess(process=known.id, grace_s=0))
        await settle()
        known.end = known.end or _KILLED

    async def _attach(self, known: Known, size: int) -> None:
        offset = size % (len(known.said) + 1)
        known.link.close()
        known.link = FakeLink()
        known.attached(offset)
        await self._processes.attach(calls.ProcessAttach(process=known.id, stdout=offset, stderr=0), known.link)

    async def _detach(self, known: Known, _: int) -> None:
        await self._processes.detach(calls.ProcessName(process=known.id), known.link)
        known.attached(None)

    async def _cut(self, known: Known, _: int) -> None:
        known.link.close()
        known.link = FakeLink()
        known.attached(None)

    async def _wait(self, known: Known, _: int) -> None:
        waiting = calls.WaitProcess(process=known.id, timeout_s=0)
        if known.end is None:
            with pytest.raises(DeadlineExceeded):
                await self._processes.wait(waiting)
        else:
            assert (await self._processes.wait(waiting)).exit == known.end

    async def _forget(self, known: Known, _: int) -> None:
        forgetting = calls.ForgetProcess(process=known.id)
        if known.end is None:
            with pytest.raises(InvalidState):
                await self._processes.forget(forgetting, known.link)
            return
        await self._processes.forget(forgetting, known.link)
        self._known.remove(known)
        with pytest.raises(NotFound):
            await self._processes.get(calls.ProcessName(process=known.id))

    async def _close(self, known: Known, _: int) -> None:
        try:
            await self._processes.close_stdin(calls.CloseStdin(process=known.id))
        except CoworkError:
            assert known.end is not None
            return
        known.closed = True


async def play(steps: list[Step]) -> None:
    async with open_house() as house:
        model = Model(house)
        for step in steps:
            await model.play(step)
        await model.conclude()
        await settle()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(_steps)
def test_any_order_of_calls_agrees_with_the_model(steps: list[Step]) -> None:
    trio.run(play, steps, clock=trio.testing.MockClock())
