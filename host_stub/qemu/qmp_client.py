"""QMP over a socket, for trio: `execute` and its answer, each event to one who listens.

Owned by whoever runs `run`: while that runs the link lives. Cancelling an `execute` leaves its answer to nobody; QEMU has done it or
does it still. When QEMU closes the link, or says what is no QMP, `run` returns and every waiting `execute` raises Trouble `qemu_gone`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import trio

from host_stub.qemu.qmp import Answer, Greeting, QmpConnection, QmpError, QmpEvent, Refusal
from host_stub.words import Trouble

ANSWER_TIMEOUT_S = 30.0
_READ_BYTES = 64 << 10


class QmpClient:
    """One link to one QEMU. `on_event` is called in the order of QEMU's telling, and must not block."""

    def __init__(self, stream: trio.abc.Stream, on_event: Callable[[QmpEvent], None]) -> None:
        self._stream = stream
        self._on_event = on_event
        self._connection = QmpConnection()
        self._waiting: dict[int, _Waiting] = {}
        self._greeted = trio.Event()
        self._writing = trio.Lock()
        self._over: str | None = None
        self.version = "unknown"

    async def run(self) -> None:
        """Read until QEMU closes; returns then, and never raises for what QEMU does."""
        try:
            self._over = await self._read()
        except BaseException:
            self._over = "the link was given up"
            raise
        finally:
            self._greeted.set()
            for waiting in self._waiting.values():
                waiting.done.set()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    async def greet(self, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Wait for QEMU and leave its negotiation mode. Raises Trouble."""
        with trio.move_on_after(timeout_s):
            await self._greeted.wait()
        if not self._greeted.is_set():
            raise _silent(f"QEMU has said nothing for {timeout_s:g} s")
        await self.execute("qmp_capabilities", timeout_s=timeout_s)

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Any:
        """QEMU's answer. Raises Trouble: `qemu_refused`, `qemu_silent`, `qemu_gone`."""
        if self._over is not None:
            raise _gone(self._over)
        try:
            number, data = self._connection.send(command, arguments)
        except QmpError as error:
            raise _silent(str(error)) from error
        waiting = self._waiting[number] = _Waiting()
        try:
            with trio.move_on_after(timeout_s):
                async with self._writing:
                    await self._write(data)
                await waiting.done.wait()
        finally:
            del self._waiting[number]
        return self._value_of(command, waiting, timeout_s)

    def _value_of(self, command: str, waiting: _Waiting, timeout_s: float) -> Any:
        match waiting.received:
            case Answer(value=value):
                return value
            case Refusal(description=description):
                raise Trouble("qemu_refused", f"QEMU refuses {command}: {description}", remedy="see the machine's log")
        if self._over is not None:
            raise _gone(self._over)
        raise _silent(f"QEMU has not answered {command} for {timeout_s:g} s")

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _gone("QEMU has closed its control link") from error

    async def _read(self) -> str:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self._stream.receive_some(_READ_BYTES):
                try:
                    self._connection.receive_data(bytes(data))
                except QmpError as error:
                    self._hand_out()
                    return f"QEMU's control link said {error}"
                self._hand_out()
        return "QEMU has closed its control link"

    def _hand_out(self) -> None:
        while (received := self._connection.next_event()) is not None:
            match received:
                case Greeting(version=version):
                    self.version = version
                    self._greeted.set()
                case QmpEvent():
                    self._on_event(received)
                case Answer() | Refusal():
                    if (waiting := self._waiting.get(received.id)) is not None:
                        waiting.received = received
                        waiting.done.set()


class _Waiting:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.received: Answer | Refusal | None = None


def _gone(why: str) -> Trouble:
    return Trouble("qemu_gone", why, remedy="the machine has ended; start it again, and look at the end of its logs")


def _silent(why: str) -> Trouble:
    return Trouble("qemu_silent", why, remedy="end the machine and start it again")
