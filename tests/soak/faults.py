"""What goes wrong during a soak: links that are cut, and programs that are killed. One at a time, chosen by the seed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from coworkd.client import aio
from coworkd.model.errors import CoworkError, Unavailable
from tests.soak.keeper import Keeper
from tests.soak.load import Load


class Faults:
    """`counts` says what was done."""

    def __init__(self, keeper: Keeper, load: Load, seed: int, *, way_out: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._keeper = keeper
        self._load = load
        self._chance = random.Random(f"{seed} faults")
        self._way_out = way_out

    async def one(self, *, kill_coworkd: bool) -> None:
        """Do one of them."""
        known: list[tuple[int, str, Callable[[], Awaitable[bool]]]] = [
            (6, "link cut", self._cut_link),
            (6, "command killed", self._kill_command),
            (3, "coworkd killed", self._kill_coworkd),
            (1, "egress killed", self._kill_egress),
        ]
        if not kill_coworkd:
            del known[2]
        if not self._way_out:
            del known[-1]
        (chosen,) = self._chance.choices(known, [weight for weight, _, _ in known])
        self._load.last_fault = (trio.current_time(), chosen[1])
        if await chosen[2]():
            self.counts[chosen[1]] += 1

    async def _cut_link(self) -> bool:
        stream = self._chance.choice(self._load.clients)._link._stream
        if not isinstance(stream, trio.SocketStream):
            return False
        with contextlib.suppress(OSError):
            stream.socket.shutdown(trio.socket.SHUT_RDWR)
        return True

    async def _kill_command(self) -> bool:
        """The payload of a running command, by a descriptor of it, so that no other can be meant."""
        try:
            async with await aio.connect(self._load.uri) as client:
                running = [
                    each for each in (await client.process_list()).processes if each.state == "running" and each.pid
                ]
        except CoworkError:
            return False
        started = [each for each in running if each.process.startswith(f"s{os.getpid()}-")]
        if not started:
            return False
        chosen = self._chance.choice(started)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            pidfd = os.pidfd_open(chosen.pid or 0)
            try:
                words = Path(f"/proc/{chosen.pid}/cmdline").read_bytes().split(b"\0")
                if words[:1] == list(chosen.argv[:1]):
                    self._load.doomed.add(chosen.process)
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return True
            finally:
                os.close(pidfd)
        return False

    async def _kill_coworkd(self) -> bool:
        await self._keeper.kill_and_start()
        return True

    async def _kill_egress(self) -> bool:
        try:
            async with await aio.connect(self._load.uri) as client:
                pid = (await client.egress_status()).pid
        except Unavailable:
            return False
        if not pid:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True
