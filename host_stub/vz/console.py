"""The serial console of a VZ machine: VZ writes into a pipe, from here it goes to the log and to whoever looks on.

    VZ ─pipe─▶ Console ┬ serial log, appended, raw; full at `LOG_BYTES` it becomes NAME.1
                       └ clients of the console socket, each its own queue
    clients ─▶ Console ─pipe─▶ VZ

Rules
- The log is bounded, whatever the guest writes. A disk that takes no more loses output, and the machine goes on.
- A client that does not read loses the connection, not the others their output. What clients type is written in turns; a guest that does
  not read makes them wait.
- "Kernel panic - not syncing" is noticed, because VZ tells of a panicked guest nothing at all.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import trio

LOG_BYTES = 8 << 20
CLIENTS = 8
QUEUED_PIECES = 64
_PIECE_BYTES = 16 << 10
_PANIC = b"Kernel panic - not syncing"
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class PanicWatch:
    """Finds the kernel's last words in pieces of any size."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> bool:
        window = self._tail + data
        self._tail = window[-len(_PANIC) + 1 :]
        return _PANIC in window


class SerialLog:
    """An append-only file of bytes and its one predecessor. Blocks: called by `trio.to_thread.run_sync`, one caller at a time."""

    def __init__(self, path: Path, limit_bytes: int = LOG_BYTES) -> None:
        self._path = path
        self._limit = limit_bytes
        self._fd = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        """What the disk refuses is lost."""
        with contextlib.suppress(OSError):
            if self._fd >= 0 and self._size + len(data) > self._limit:
                self.close()
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._fd).st_size
            self._size += os.write(self._fd, data)

    def close(self) -> None:
        """Idempotent; a later `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Console:
    """Owns the two pipe ends `output_fd` (what the guest writes) and `input_fd`, from `run` on."""

    def __init__(self, output_fd: int, input_fd: int, log: SerialLog, on_panic: Callable[[], None]) -> None:
        """`on_panic` is called once."""
        self._output_fd, self._input_fd = output_fd, input_fd
        self._log = log
        self._on_panic = on_panic
        self._clients: set[trio.MemorySendChannel[bytes]] = set()
        self._typing = trio.Lock()
        self.ended = trio.Event()
        """The log has all that the guest wrote."""

    async def run(self, listener: socket.socket | None) -> None:
        """Until VZ closes its end. Owns `listener`."""
        async with trio.open_nursery() as nursery, trio.lowlevel.FdStream(self._input_fd) as guest_input:
            if listener is not None:
                accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))

                async def serve_client(client: trio.SocketStream) -> None:
                    await self._serve_client(client, guest_input)

                nursery.start_soon(trio.serve_listeners, serve_client, [accepting])
            await self._pump()
            nursery.cancel_scope.cancel()

    async def _pump(self) -> None:
        watch: PanicWatch | None = PanicWatch()
        try:
            async with trio.lowlevel.FdStream(self._output_fd) as output:
                while data := bytes(await output.receive_some(_PIECE_BYTES)):
                    await trio.to_thread.run_sync(self._log.write, data)
                    self._show(data)
                    if watch is not None and watch.feed(data):
                        watch = None
                        self._on_panic()
        finally:
            self._log.close()
            self.ended.set()

    def _show(self, data: bytes) -> None:
        for queue in list(self._clients):
            try:
                queue.send_nowait(data)
            except trio.WouldBlock:
                self._clients.discard(queue)
                queue.close()

    async def _serve_client(self, client: trio.SocketStream, guest_input: trio.lowlevel.FdStream) -> None:
        async with client:
            if len(self._clients) >= CLIENTS:
                return
            send, receive = trio.open_memory_channel[bytes](QUEUED_PIECES)
            self._clients.add(send)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._type, client, guest_input, nursery.cancel_scope)
                    nursery.start_soon(self._follow, client, receive, nursery.cancel_scope)
            finally:
                self._clients.discard(send)
                send.close()

    async def _follow(
        self, client: trio.SocketStream, queue: trio.MemoryReceiveChannel[bytes], scope: trio.CancelScope
    ) -> None:
        with contextlib.suppress(*_GONE):
            async for data in queue:
                await client.send_all(data)
        scope.cancel()

    async def _type(
        self, client: trio.SocketStream, guest_input: trio.lowlevel.FdStream, scope: trio.CancelScope
    ) -> None:
        with contextlib.suppress(*_GONE):
            while data := await client.receive_some(_PIECE_BYTES):
                async with self._typing:
                    await guest_input.send_all(data)
        scope.cancel()
