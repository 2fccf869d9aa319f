"""A link's writer asks only those that may have something, so a wake that is forgotten is a stream that hangs. In whatever order commands
write, end and are read, streams are acknowledged and closed and events come: once nothing moves any more, nobody has anything, no pipe was
forgotten, and every exit was told.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Callable, Mapping
from typing import Any

import trio
import trio.testing

from coworkd.model.calls import Subscribe
from coworkd.model.errors import CoworkError
from coworkd.model.ports import Frames
from coworkd.model.process import Exit, ExitRecord, OnFull, StreamName
from coworkd.rpc.writer import Writer
from coworkd.services.events import EventRing
from coworkd.services.process_reader import ProcessReader
from coworkd.services.pumps import PASSES, REST_S, PipeWatch, Pump
from coworkd.services.spools import Spool, SpoolBudget
from coworkd.services.streams_flow import Flow
from coworkd.services.streams_socket import SocketEnd
from coworkd.system import spool_file
from tests.fuzz.budget import play
from tests.unit.rpc.fakes import FakeTransport
from tests.unit.services.process_house import encode_notification, encode_output, jump
from tests.unit.services.stream_house import encode_data

SIZES = (1, 5000, 65_536, 300_000)
QUIET_S = 0.001


class WriterLink:
    """A `ports.LinkPort` with a real writer, and no more."""

    name = "fuzz"

    def __init__(self, writer: Writer) -> None:
        self.attach, self.detach, self.wake = writer.attach, writer.detach, writer.wake

    def notify(self, method: str, params: Mapping[str, Any], /) -> None:
        raise AssertionError("an exit is a frame of its source")

    def on_close(self, call: Callable[[], None], /) -> None: ...

    def finish(self, error: CoworkError, /) -> None: ...


class Command:
    """Two pipes, their pumps and spools, and who reads them."""

    def __init__(self, chance: random.Random, watch: PipeWatch, budget: SpoolBudget) -> None:
        self._chance = chance
        self.record: ExitRecord | None = None
        self.readers: list[ProcessReader] = []
        self._held: list[ProcessReader] = []
        self.pumps: dict[StreamName, Pump] = {}
        self._ends: dict[StreamName, int] = {}
        self._written: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        choices: list[OnFull | None] = [None, "block", "drop_oldest"]
        on_full = chance.choice(choices)
        for name in self._written:
            limit_bytes = chance.choice([65_536, 262_144, 1_048_576])
            spool = Spool(spool_file.create(name), limit_bytes=limit_bytes, on_full=on_full, budget=budget)
            read_fd, self._ends[name] = os.pipe()
            os.set_blocking(self._ends[name], False)
            self.pumps[name] = Pump(read_fd, spool, ended=lambda: None, failed=lambda error: None)
            self.pumps[name].begin(watch)

    def write(self) -> None:
        for name in self._chance.sample(sorted(self._ends), k=min(1, len(self._ends))):
            with contextlib.suppress(BlockingIOError):
                self._written[name] += os.write(self._ends[name], bytes(self._chance.choice(SIZES)))

    def close_one(self) -> None:
        for name in self._chance.sample(sorted(self._ends), k=min(1, len(self._ends))):
            os.close(self._ends.pop(name))

    def attach(self, link: WriterLink) -> None:
        streams = {
            name: (pump.spool, self._chance.choice([pump.spool.first, pump.spool.end]))
            for name, pump in self.pumps.items()
        }
        reader = ProcessReader(
            "fuzz",
            link,
            streams,
            encode_output=encode_output,
            encode_notification=encode_notification,
            gone=self._gone,
            acknowledged=self._chance.random() < 0.5,
        )
        for other in tuple(self.readers):
            other.leave()
        self.readers.append(reader)
        if self.record is not None:
            reader.exited(self.record, {})
        link.attach(reader)

    def _gone(self, reader: ProcessReader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
        if reader.held:
            self._held.append(reader)

    def leave(self, link: WriterLink) -> None:
        """Whoever reads goes, on purpose or not; whoever has gone is not waited for any more."""
        for held in self._held:
            held.release()
        for reader in tuple(self.readers):
            self._chance.choice([ProcessReader.leave, link.detach])(reader)

    def acknowledge(self) -> None:
        for reader in self.readers:
            if reader.acknowledged:
                reader.acknowledge(
                    {each.stream: self._chance.randint(each.offset, each.sent) for each in reader._cursors}
                )

    def end(self) -> None:
        """It ends, and everything that it wrote came."""
        if self.record is not None:
            return
        while self._ends:
            os.close(self._ends.popitem()[1])
        for name, pump in self.pumps.items():
            if pump.spool.blocking:
                pump.spool.extend(pump.pipe_bytes() + 1)
            while not pump.spool.eof:  # one that keeps little takes it in several turns
                before = pump.spool.total
                pump.take()
                assert pump.spool.eof or pump.spool.total > before
            assert pump.spool.total == self._written[name]
        self.record = ExitRecord(
            process="fuzz",
            session="fuzz",
            exit=Exit(code=0, signal=None, reason="exited"),
            output="complete",
            bytes={str(name): count for name, count in self._written.items()},
            rusage=None,
            started_at=0.0,
            ended_at=1.0,
        )
        for reader in tuple(self.readers):
            reader.exited(self.record, {})

    def check_taken(self) -> None:
        """Nothing is left in a pipe but what waits for somebody who has not come as far."""
        for name, pump in self.pumps.items():
            waits = pump.spool.blocking and pump.spool._wanted_from() < pump.spool.end
            assert waits or pump.spool.total == self._written[name]

    def forget(self) -> None:
        if self.record is not None:
            for pump in self.pumps.values():
                pump.spool.close()


class House:
    """One link, and everything that can be attached to it. Each public method is a step."""

    def __init__(self, chance: random.Random, writer: Writer, watch: PipeWatch, nursery: trio.Nursery) -> None:
        self._chance = chance
        self._link = WriterLink(writer)
        self._nursery = nursery
        self._ring = EventRing(ring_events=8)
        budget = SpoolBudget(chance.choice([1 << 17, 1 << 24]))
        self.commands = [Command(chance, watch, budget) for _ in range(3)]
        self.flows: list[tuple[Flow, socket.socket]] = []
        self.open_flow()
        self._steps: dict[Callable[[], object], int] = {
            lambda: self._command.write(): 6,
            lambda: self._command.attach(self._link): 2,
            lambda: self._command.acknowledge(): 2,
            lambda: self._command.leave(self._link): 2,
            lambda: self._ring.publish("fuzz", {"text": "x" * chance.choice([1, 50_000])}): 2,
            lambda: self._ring.subscribe(Subscribe(after=None), self._link): 1,
            self.open_flow: 1,
            self.write_flow: 2,
            self.acknowledge_flow: 2,
            self.end_flow: 1,
            lambda: jump(REST_S * chance.choice([0.5, 1, 5])): 2,
            watch.others_work: 1,
        }

    @property
    def _command(self) -> Command:
        return self._chance.choice(self.commands)

    def step(self) -> None:
        (step,) = self._chance.choices(list(self._steps), weights=list(self._steps.values()))
        step()
        if self._chance.random() < 0.004:
            self._command.close_one()
        if self._chance.random() < 0.002:
            self._command.end()
            self._command.forget()

    def open_flow(self) -> None:
        if len(self.flows) < 6:
            ours, peer = socket.socketpair()
            peer.setblocking(False)
            window = self._chance.choice([None, 1, 1000, 70_000])
            flow = Flow(f"s{len(self.flows)}", SocketEnd(ours), self._link, encode=encode_data, window=window)
            flow.on_end(lambda ending: None)
            self._nursery.start_soon(flow.watch)
            self._link.attach(flow)
            self.flows.append((flow, peer))

    def write_flow(self) -> None:
        with contextlib.suppress(OSError):  # one of the two has closed
            self._chance.choice(self.flows)[1].send(bytes(self._chance.choice(SIZES)))

    def acknowledge_flow(self) -> None:
        flow, _ = self._chance.choice(self.flows)
        flow.ack(self._chance.randint(0, flow.offset))

    def end_flow(self) -> None:
        flow, peer = self._chance.choice(self.flows)
        ways: list[Callable[[], object]] = [
            flow.close,
            peer.close,
            lambda: peer.shutdown(socket.SHUT_WR),
            lambda: flow.close_write(None),
        ]
        with contextlib.suppress(OSError):  # one of the two has closed
            self._chance.choice(ways)()


def check_nobody_has_anything(sources: list[Frames]) -> None:
    for source in sources:
        assert source.next_frame(65_536) is None, f"{type(source).__name__} has something and was not asked"


async def hurry(chance: random.Random) -> None:
    transport = FakeTransport()
    writer, watch = Writer(transport, name="fuzz", overflowed=lambda: None), PipeWatch()
    watch.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        nursery.start_soon(watch.serve)
        house = House(chance, writer, watch, nursery)
        for _ in range(40):
            if chance.random() < 0.3:
                transport.stall()
            for _ in range(chance.randint(1, 12)):
                house.step()
                if chance.random() < 0.3:
                    await trio.lowlevel.checkpoint()
            transport.go_on()
            await trio.testing.wait_all_tasks_blocked(QUIET_S)
            check_nobody_has_anything(list(writer._turns))
        for _ in range(4 * (PASSES + 1)):
            jump(REST_S)
            await trio.testing.wait_all_tasks_blocked(QUIET_S)
        for command in house.commands:
            command.check_taken()
            command.end()
        await trio.testing.wait_all_tasks_blocked(QUIET_S)
        assert [command.readers for command in house.commands] == [[], [], []], "every exit was told"
        writer.close()
        for flow, peer in house.flows:
            flow.close()
            peer.close()
        for command in house.commands:
            command.forget()
        watch.close()
        nursery.cancel_scope.cancel()


def test_nobody_who_has_something_is_forgotten() -> None:
    play(0.03, lambda chance: trio.run(hurry, chance, clock=trio.testing.MockClock()))
