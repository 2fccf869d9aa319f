"""A thread that answers on one listening socket, whatever the loop of this process is doing.

Rules
- It waits for nobody: a client has `CLIENT_S` for its request and for taking the answer, then it is closed.
- At most `CLIENTS` at once: one more closes the oldest. Whoever asks at once is answered at once, however many others stay silent.
- What a client does ends that client. What fails while an answer is made is told with 500.
- It shares nothing with the loop but what it is given to answer by, and takes no lock, so it writes no log: a loop that hangs may hang in
  there. Only a C function that never lets go of the interpreter can keep it from answering, and that stops everything.
- It keeps a descriptor to give up: a process that has no more of them can still say so.

Not here: who may connect (the socket's mode, `may_come`), and what is answered. Sources: accept(2), unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from coworkd.services.health_http import Answer, RequestReader, compose, refuse

CLIENTS = 16
CLIENT_S = 2.0
RETRY_S = 0.1
_CHUNK_BYTES = 4096
_DRAIN_BYTES = 64 * 1024
"""So much of what a client goes on to send is read before it is closed; unread, it would cost the client the answer (unix(7))."""
_JOIN_S = 1.0

Respond = Callable[[str], Answer]


class _Client:
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self.socket = connected
        self.deadline = deadline
        self.reader: RequestReader | None = RequestReader()
        """None once it is answered."""
        self.left = b""
        """Of the answer."""
        self.drained = 0


class HealthThread:
    """Owns `listener` from now on, until `close`."""

    def __init__(
        self,
        listener: socket.socket,
        respond: Respond,
        *,
        may_come: Callable[[Any], bool] = lambda address: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`may_come` is given what accept(2) says of the peer; one that may not is closed without a byte."""
        self._listener = listener
        self._respond = respond
        self._may_come = may_come
        self._monotonic = monotonic
        self._clients: dict[_Client, None] = {}
        self._selector = selectors.DefaultSelector()
        self._spare = -1
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="coworkd-health", daemon=True)

    def start(self) -> None:
        self._listener.setblocking(False)
        self._keep_spare()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread.start()

    def close(self) -> None:
        """End the thread and every connection. Idempotent."""
        self._wake.close()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            for client in list(self._clients):
                self._drop(client)
            self._selector.close()
            self._listener.close()
            self._woken.close()
            self._give_up_spare()

    def _turn(self) -> bool:
        """Whether to go on."""
        for key, _ in self._selector.select(self._patience_s()):
            if key.data is None:
                return False
            if isinstance(key.data, _Client):
                self._serve(key.data)
            else:
                key.data()
        now = self._monotonic()
        for client in [client for client in self._clients if client.deadline <= now]:
            self._drop(client)
        return True

    def _patience_s(self) -> float | None:
        if not self._clients:
            return None
        return max(0.0, next(iter(self._clients)).deadline - self._monotonic())

    def _accept(self) -> None:
        try:
            connected, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._give_up_spare():
                time.sleep(RETRY_S)
            return
        if not self._may_come(address):
            connected.close()
            return
        connected.setblocking(False)
        while len(self._clients) >= CLIENTS:
            self._drop(next(iter(self._clients)))
        client = _Client(connected, self._monotonic() + CLIENT_S)
        self._clients[client] = None
        self._selector.register(connected, selectors.EVENT_READ, client)
        self._serve(client)

    def _serve(self, client: _Client) -> None:
        """One step of one client, which has not ended, as far as it goes without waiting."""
        if client not in self._clients:  # it had to go for another one in this very turn
            return
        try:
            self._step(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _step(self, client: _Client) -> None:
        while client.reader is not None:
            data = client.socket.recv(_CHUNK_BYTES)
            if not data:
                self._drop(client)
                return
            asked = client.reader.feed(data)
            if asked is not None:
                client.reader = None
                client.left = compose(self._answer(asked) if isinstance(asked, str) else asked)
                self._selector.modify(client.socket, selectors.EVENT_WRITE, client)
        if client.left:
            while client.left:
                client.left = client.left[client.socket.send(client.left) :]
            client.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(client.socket, selectors.EVENT_READ, client)
        while client.drained < _DRAIN_BYTES:
            rest = client.socket.recv(_CHUNK_BYTES)
            if not rest:
                break
            client.drained += len(rest)
        self._drop(client)

    def _answer(self, path: str) -> Answer:
        try:
            return self._respond(path)
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: it must not end
            return refuse(500, f"no answer could be made: {type(error).__name__}")

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        self._selector.unregister(client.socket)
        client.socket.close()
        self._keep_spare()

    def _keep_spare(self) -> None:
        if self._spare < 0:
            with contextlib.suppress(OSError):
                self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_spare(self) -> bool:
        """Whether there was one."""
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)
        return spare >= 0
