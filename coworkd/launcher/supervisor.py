"""The one supervisor there is at a time, or none.

Rules
- A second one is answered by end of file while the first lives. Only root may connect.
- One that goes leaves everything running; `alone_since` says since when there is none.
- What it only tells (a request of id 0) has no answer, good or bad.
- An `OSError` of a request (no descriptor is left, a bad limit), and a value that cannot be handed to the kernel, are that request's
  refusal and end nothing else.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Sequence

from coworkd.launcher.link import SupervisorLink
from coworkd.launcher.readers import Readers
from coworkd.model import launch
from coworkd.system.supervised import peer_uid


class Supervisor:
    """Whoever is at the other end of the listener's newest connection. The listener stays the caller's."""

    def __init__(
        self,
        listener: socket.socket,
        readers: Readers,
        *,
        handle: Callable[[launch.Request, list[int]], None],
        on_gone: Callable[[], None],
    ) -> None:
        """`handle` gets each request with its descriptors, which are closed after it unless it took them out of the list."""
        self._listener = listener
        self._readers = readers
        self._handle = handle
        self._on_gone = on_gone
        self._link: SupervisorLink | None = None
        self._alone_since = time.monotonic()

    def listen(self) -> None:
        """From now on let supervisors in."""
        self._readers.register(self._listener.fileno(), self._accept)

    @property
    def alone_since(self) -> float | None:
        """Since when (monotonic) there is none; None while there is one."""
        return self._alone_since if self._link is None else None

    def send(self, reply: launch.Reply, fds: Sequence[int] = ()) -> None:
        """Tell it; `fds` stay the caller's. What nobody hears is told again to the next one, by `Adopted`."""
        if self._link is None or (isinstance(reply, launch.Done | launch.Refused) and not reply.id):
            return
        self._link.send(reply, fds)

    def refuse(self, request_id: int, stage: str, number: int | None, message: str) -> None:
        self.send(launch.Refused(id=request_id, stage=stage, errno=number, message=message))

    def settle(self) -> None:
        """After a round: wait for room where something is left to be said, let go of one that has gone."""
        link = self._link
        if link is None:
            return
        if link.closed:
            self._readers.unregister(link.fileno())
            link.close()
            self._on_gone()
            self._link = None
            self._alone_since = time.monotonic()
            return
        self._readers.want_room(link.fileno(), wanted=link.behind)

    def _accept(self) -> None:
        # The one before may have hung up in the same moment: a supervisor that was killed and started again.
        self._receive()
        self.settle()
        connection, _ = self._listener.accept()
        if peer_uid(connection) != 0 or self._link is not None:
            connection.close()
            return
        self._link = SupervisorLink(connection)
        self._readers.register(connection.fileno(), self._ready)

    def _ready(self) -> None:
        if self._link is not None:
            self._link.flush()
        self._receive()

    def _receive(self) -> None:
        while self._link is not None and not self._link.closed:
            received = self._link.receive()
            if received is None:
                break
            request, fds = received
            try:
                self._handle(request, fds)
            except OSError as error:
                where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, (str, bytes)) else ""
                self.refuse(request.id, "resources", error.errno, f"{type(request).__name__}: {error.strerror}{where}")
            except (ValueError, OverflowError) as error:
                # A number without end, a NUL in a path: no call of the kernel's takes it.
                self.refuse(request.id, "request", errno.EINVAL, f"{type(request).__name__}: {error}")
            finally:
                for fd in fds:
                    os.close(fd)
