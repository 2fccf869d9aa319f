"""The back end's end of its conversation with the process that owns VZ's objects: requests out, answers and news in.

Rules
- A request that fails there raises its `Trouble` here; so does every waiting one when the process ends (`vz_process_ended`).
- A process that takes nothing more may have said something before, how its machine ended above all: it is heard to its end of file.
- Whoever stops waiting loses the answer: the descriptors that come with it are closed, and a connection is released.
- News are handed over in order, with their descriptors, to a callback that does not block and does not raise.

The link is nobody's until `serve` runs: its owner starts that once.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import TypeVar

import trio
from msgspec import structs

from host_stub.vz import words
from host_stub.vz.control import receive_some, rights
from host_stub.vz.words import CONNECTIONS
from host_stub.words import Trouble

Told = tuple[words.Answer, list[int]]
_Answer = TypeVar("_Answer", bound=words.Answer)


class _Waiting:
    def __init__(self) -> None:
        self.answered = trio.Event()
        self.told: Told | None = None


class ProcessLink:
    """Owns `connection`."""

    def __init__(self, connection: socket.socket, on_news: Callable[[words.Message, list[int]], None]) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._on_news = on_news
        self._frames = words.Frames(words.FromProcess)
        self._sending = trio.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._last_id = 0
        self._why: str | None = None
        self._deaf: str | None = None
        """Why it takes nothing any more; what it has said is still read."""
        self.ended = trio.Event()
        # There are never more connections to give back than there can be.
        self._to_release, self._releases = trio.open_memory_channel[int](2 * CONNECTIONS)

    async def serve(self) -> None:
        """Until the process ends or breaks the words; then whoever waits is told."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_back)
            await self._receive()
            nursery.cancel_scope.cancel()

    async def _receive(self) -> None:
        why = "it has ended"
        try:
            while True:
                await trio.lowlevel.wait_readable(self._connection)
                try:
                    data, fds = receive_some(self._connection)
                except BlockingIOError:
                    continue
                if not data:
                    return
                self._frames.feed(data, fds)
                while (found := self._frames.next()) is not None:
                    self._take(*found)
        except (OSError, words.BrokenWords) as error:
            why = f"it broke off: {error}"
        except trio.ClosedResourceError:
            why = "it was closed"  # by whoever owns this, who knows
        finally:
            self.close(why)

    async def ask(
        self, request: words.Request, kind: type[_Answer], fds: tuple[int, ...] = ()
    ) -> tuple[_Answer, list[int]]:
        """The answer and its descriptors, the caller's now; `request.id` is filled in. Raises Trouble."""
        self._last_id += 1
        number = self._last_id
        waiting = self._waiting[number] = _Waiting()
        try:
            await self.tell(structs.replace(request, id=number), fds)
            await waiting.answered.wait()
        except BaseException:
            if waiting.told is not None:
                self._drop(*waiting.told)
            raise
        finally:
            self._waiting.pop(number, None)
        if waiting.told is None:
            raise self._ended()
        answer, received = waiting.told
        if isinstance(answer, words.Failed):
            raise Trouble(answer.code, answer.message, remedy=answer.remedy, details=answer.details)
        if not isinstance(answer, kind):
            self._drop(answer, received)
            raise Trouble("vz_process_ended", f"it answered {type(answer).__name__}", remedy="start the machine again")
        return answer, received

    async def tell(self, message: words.Message, fds: tuple[int, ...] = ()) -> None:
        """Send what is not answered. Raises Trouble. A frame is sent whole, or the link ends."""
        async with self._sending:
            data, ancillary = memoryview(words.encode(message)), rights(fds)
            while data:
                if self._why is not None or self._deaf is not None:
                    raise self._ended()
                try:
                    sent = self._connection.sendmsg([data], ancillary)
                except BlockingIOError:
                    await self._until_writable()
                    continue
                except OSError as error:
                    self._stop_telling(f"it takes nothing any more: {error}")
                    raise self._ended() from error
                data, ancillary = data[sent:], []

    def close(self, why: str = "it was closed") -> None:
        """End the conversation, which ends the process; may be called again."""
        if self._why is not None:
            return
        self._why = why
        self.ended.set()
        self._frames.close()
        trio.lowlevel.notify_closing(self._connection)
        self._connection.close()
        for waiting in self._waiting.values():
            waiting.answered.set()

    def _stop_telling(self, why: str) -> None:
        """It may have half a frame, so it gets an end of file; it ends by that, and its own is waited for."""
        if self._deaf is None:
            self._deaf = why
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)

    async def _until_writable(self) -> None:
        with trio.CancelScope(shield=True), contextlib.suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(self._connection)

    def _take(self, message: words.Message, fds: list[int]) -> None:
        if not isinstance(message, words.Answer):
            self._on_news(message, fds)
            return
        waiting = self._waiting.get(message.id)
        if waiting is None or waiting.told is not None:
            self._drop(message, fds)
        else:
            waiting.told = message, fds
            waiting.answered.set()

    def _drop(self, answer: words.Answer, fds: list[int]) -> None:
        """Nobody wants it."""
        for fd in fds:
            os.close(fd)
        if isinstance(answer, words.Connected):
            self.release_nowait(answer.connection)

    def release_nowait(self, connection: int) -> None:
        """Give a connection back, from where nothing can be awaited."""
        with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
            self._to_release.send_nowait(connection)

    async def _give_back(self) -> None:
        with contextlib.suppress(Trouble):
            async for connection in self._releases:
                await self.tell(words.Release(connection=connection))

    def _ended(self) -> Trouble:
        return Trouble(
            "vz_process_ended",
            f"the process that owns the machine does not answer: {self._why or self._deaf}",
            remedy="start the machine again; its last words stand in the log",
        )
