"""A live server with real links and the process service behind it, and hosts that say nearly what they should.

What they say are conversations: those of the protocol's vectors, and one of every call to a process; each mutated, cut into any pieces, and
broken off anywhere. Whatever comes, the next host is served at once, no link stays, and no descriptor.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import trio
import trio.testing

from coworkd.model import calls
from coworkd.rpc.handlers.process import process_methods
from coworkd.wire.connection import Connection
from coworkd.wire.limits import LocalLimitError
from tests.fuzz.budget import play
from tests.fuzz.mutate import Maker, cut, mutate
from tests.unit.rpc.fakes import HELLO, FakeTransport, bench
from tests.unit.services.process_house import House, open_house

SHARE = 0.1
_HERE = Path(__file__).resolve().parent
_CALLS: dict[str, type[Any]] = {
    "process.run": calls.ProcessRun,
    "process.start": calls.ProcessStart,
    "process.attach": calls.ProcessAttach,
    "process.detach": calls.ProcessName,
    "process.write_stdin": calls.WriteStdin,
    "process.close_stdin": calls.CloseStdin,
    "process.resize": calls.Resize,
    "process.signal": calls.SignalProcess,
    "process.kill": calls.KillProcess,
    "process.wait": calls.WaitProcess,
    "process.get": calls.ProcessName,
    "process.list": calls.ProcessListParams,
    "process.forget": calls.ForgetProcess,
}
_POOL: dict[str, tuple[Any, ...]] = {
    "process": ("one", "two", "none"),
    "id": ("one", "two", None),
    "session": ("work",),
    "argv": ([b"cat"], ["cat", "x"], []),
    "stdin": ("pipe", "none"),
    "tty": (None,),
    "request_id": ("r1", "r2"),
    "offset": (0, 3, 4096),
    "data": (b"abc", b"", b"x" * 5000),
    "timeout_s": (0.0, 1.0, None),
    "grace_s": (0.0, 1.0),
    "signal": (15, "TERM", 9),
}


def recorded() -> list[bytes]:
    """Conversations of hosts as bytes in files: the protocol's vectors, and what once found something."""
    return [path.read_bytes() for where in ("../vectors", "corpus") for path in sorted((_HERE / where).glob("*.bin"))]


_RECORDED = recorded()


def conversation(chance: random.Random) -> bytes:
    """Hello, and then some calls."""
    host = Connection("host")
    said = host.send_request("hello", HELLO)[1]
    maker = Maker(chance, _POOL)
    for _ in range(chance.randint(0, 12)):
        name = chance.choice(list(_CALLS))
        params = maker.make(_CALLS[name], confused=chance.random() < 0.1)
        params.pop("type", None)
        with contextlib.suppress(LocalLimitError):
            said += host.send_request(name, params)[1]
    return said


def what_is_said(chance: random.Random) -> bytes:
    said = conversation(chance)
    choice = chance.random()
    if choice < 0.2:
        return said
    if choice < 0.6:
        return mutate(chance, said, _RECORDED)
    hello = Connection("host").send_request("hello", HELLO)[1]
    return hello + mutate(chance, chance.choice(_RECORDED), _RECORDED)


async def one_host(chance: random.Random, transport: FakeTransport) -> None:
    for piece in cut(chance, what_is_said(chance))[:2000]:
        transport.feed(piece)
        if chance.random() < 0.2:
            await trio.testing.wait_all_tasks_blocked()
    match chance.randrange(3):
        case 0:
            transport.feed_eof()
        case 1:
            transport.lose()
        case _:
            transport.stall()
            await trio.testing.wait_all_tasks_blocked()
            transport.lose()


async def one_round(chance: random.Random) -> None:
    async with open_house() as house, bench(process_methods(house.processes)) as bed:
        for _ in range(chance.randint(1, 3)):
            await one_host(chance, bed.connect().transport)
            end_commands(chance, house)
        await trio.testing.wait_all_tasks_blocked(0.001)
        sane = await bed.greeted()
        assert (await sane.call("ping"))["time"] is not None
        assert bed.server.links == 1
        end_commands(chance, house, all_of_them=True)
        await trio.testing.wait_all_tasks_blocked(0.001)


def end_commands(chance: random.Random, house: House, *, all_of_them: bool = False) -> None:
    """The commands that were started say something, and some end."""
    for command in list(house.launcher.commands.values()):
        if command.living and not command.request.tty:
            command.write(b"x" * chance.choice((0, 1, 70_000)))
        if command.living and (all_of_them or chance.random() < 0.5):
            command.exit(chance.randrange(256))


def test_no_bytes_of_a_host_stop_the_server() -> None:
    play(SHARE, lambda chance: trio.run(one_round, chance, clock=trio.testing.MockClock(autojump_threshold=0.02)))
