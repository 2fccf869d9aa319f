"""The server: every endpoint, every link, and what they share.

Rules
- Each endpoint has one task, each link another: a silent link delays nobody, and what ends one link ends no other.
- At most `GREETED` links have said hello, and `FRESH` have not: one more of those closes the oldest of them.
- An accept that fails (out of descriptors) is logged and tried again `RETRY_S` later; it never ends the endpoint.
- A host that is dialled is dialled again for ever, `BACK_OFF_S` later at first and then doubling up to `BACK_OFF_MAX_S`;
  a link that said hello resets it.
- `link.open`, `link.close` and `link.refused` are audited. That a record could not be written is logged and does not keep
  a host out: it would also keep out whoever comes to mend the disk.

Not here: what methods do; signals; who decides to stop. Source: docs/protocol.md E-1 to E-7.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio

from coworkd.model.errors import CoworkError, LimitExceeded, Unavailable
from coworkd.model.ports import AuditPort
from coworkd.rpc.dispatch import Dispatcher
from coworkd.rpc.link import Link
from coworkd.rpc.listen import Acceptor, RefusedPeer, UnixAcceptor, VsockAcceptor
from coworkd.rpc.methods import MethodTable
from coworkd.rpc.replay import Replay
from coworkd.rpc.serial import PortLinks
from coworkd.rpc.transport import SocketTransport, Transport
from coworkd.system.vsock import open_vsock_socket
from coworkd.wire.endpoint import ServedEndpoint, UnixEndpoint, VirtioEndpoint, VsockEndpoint, VsockPort

GREETED = 256
FRESH = 512
RETRY_S = 0.1
BACK_OFF_S = 0.1
BACK_OFF_MAX_S = 5.0
DIAL_S = 5.0

_log = logging.getLogger("coworkd.rpc")

Dial = Callable[[VsockEndpoint], Awaitable[Transport]]


class Server:
    """Implements `LinkOwner`. `run` first, then `serve` each endpoint in tasks of its own."""

    def __init__(self, methods: MethodTable, audit: AuditPort) -> None:
        self.methods = methods
        self.dispatcher = Dispatcher(Replay())
        self._audit = audit
        self._fresh: dict[Link, None] = {}
        self._greeted: dict[Link, None] = {}
        self._calls: trio.Nursery | None = None
        self._links: trio.Nursery | None = None
        self._accepting: set[trio.CancelScope] = set()
        self._acceptors: set[Acceptor] = set()
        self.handed: dict[str, int] = {}
        """Descriptors that are listened on already, by endpoint: whoever serves the endpoint owns them."""
        self._stopping = False
        self._opened = 0
        self._empty = trio.Event()

    @property
    def calls(self) -> trio.Nursery:
        if self._calls is None:
            raise RuntimeError("the server does not run yet")
        return self._calls

    @property
    def links(self) -> int:
        """How many links have said hello."""
        return len(self._greeted)

    @property
    def listening(self) -> dict[str, int]:
        """The descriptors that are listened on, by endpoint; they stay the server's."""
        return {acceptor.endpoint: acceptor.fileno() for acceptor in self._acceptors}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold every link and every call. Ends when cancelled."""
        async with trio.open_nursery() as calls, trio.open_nursery() as links:
            self._calls, self._links = calls, links
            task_status.started()
            await trio.sleep_forever()

    async def serve(
        self, endpoint: ServedEndpoint, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve one endpoint until `shut_down` or cancelled; started as soon as hosts can come.

        Raises `AlreadyExists` or `Unavailable` if it cannot be listened on.
        """
        if isinstance(endpoint, VsockEndpoint):
            task_status.started()
            await self.serve_dialled(endpoint, dial_vsock)
        elif isinstance(endpoint, VirtioEndpoint):
            task_status.started()
            await self.serve_port(PortLinks(endpoint))
        else:
            acceptor = _listen(endpoint, self.handed.pop(str(endpoint), None))
            _log.info("listening on %s", acceptor.endpoint)
            task_status.started()
            await self.serve_accepted(acceptor)

    async def serve_accepted(self, acceptor: Acceptor) -> None:
        """Give each accepted connection a task. Closes `acceptor` at the end."""
        self._acceptors.add(acceptor)
        try:
            with self._until_stopped():
                while True:
                    await self._accept(acceptor)
        finally:
            self._acceptors.discard(acceptor)
            acceptor.close()

    async def serve_dialled(self, endpoint: VsockEndpoint, dial: Dial) -> None:
        """Keep one link to a host that is dialled."""
        back_off_s = BACK_OFF_S
        with self._until_stopped():
            while True:
                try:
                    with trio.fail_after(DIAL_S):
                        transport = await dial(endpoint)
                except (OSError, trio.TooSlowError) as error:
                    _log.debug("cannot reach %s: %s", endpoint, error or "no answer")
                else:
                    link = self._make_link(transport, "dial", str(endpoint))
                    await self._run_apart(link, str(endpoint))
                    if link.greeted:
                        back_off_s = BACK_OFF_S
                await trio.sleep(back_off_s)
                back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)

    async def serve_port(self, port: PortLinks) -> None:
        """Serve the links of a virtio-serial port, one after the other. Closes `port` at the end."""
        complained = False
        try:
            with self._until_stopped():
                while True:
                    try:
                        transport, first = await port.next_link()
                    except OSError as error:
                        if not complained:
                            _log.warning("%s: %s; trying on", port.endpoint, error)
                            complained = True
                        await trio.sleep(BACK_OFF_MAX_S)
                        continue
                    complained = False
                    link = self._make_link(transport, port.kind, port.endpoint, first)
                    await self._run_apart(link, port.endpoint)
        finally:
            port.close()

    async def shut_down(self, grace_s: float) -> None:
        """Accept no more, tell every link that coworkd stops, and wait at most `grace_s` for them to end."""
        self._stopping = True
        for scope in self._accepting:
            scope.cancel()
        for link in (*self._fresh, *self._greeted):
            link.finish(Unavailable("coworkd is stopping; connect again when it is back"))
        with trio.move_on_after(grace_s):
            while self._fresh or self._greeted:
                self._empty = trio.Event()
                await self._empty.wait()
        for link in (*self._fresh, *self._greeted):
            link.close()

    async def admit(self, link: Link, /, *, client: str, protocol: int) -> None:
        """See `LinkOwner`."""
        if len(self._greeted) >= GREETED:
            raise LimitExceeded(f"{GREETED} hosts are connected; close links that are not used", limit=GREETED)
        self._fresh.pop(link, None)
        self._greeted[link] = None
        await self._record("link.open", {"link": link.name, "client": client, "protocol": protocol})

    async def _accept(self, acceptor: Acceptor) -> None:
        try:
            transport, peer = await acceptor.accept()
        except RefusedPeer as refused:
            _log.warning("refused on %s: %s", acceptor.endpoint, refused)
            await self._record(
                "link.refused", {"peer": refused.peer, "endpoint": acceptor.endpoint, "reason": refused.reason}
            )
            return
        except OSError as error:
            _log.error("cannot accept on %s: %s", acceptor.endpoint, error)
            await trio.sleep(RETRY_S)
            return
        link = self._make_link(transport, acceptor.kind, f"{acceptor.endpoint} {peer}")
        self._start(link, acceptor.endpoint, lambda: None)

    @contextmanager
    def _until_stopped(self) -> Iterator[None]:
        """Cancelled by `shut_down`, which links are not: they say their last words."""
        with trio.CancelScope() as scope:
            self._accepting.add(scope)
            if self._stopping:
                scope.cancel()
            try:
                yield
            finally:
                self._accepting.discard(scope)

    async def _run_apart(self, link: Link, endpoint: str) -> None:
        """Wait for a link that is not cancelled with the endpoint's task."""
        ended = trio.Event()
        self._start(link, endpoint, ended.set)
        await ended.wait()

    def _start(self, link: Link, endpoint: str, ended: Callable[[], None]) -> None:
        if self._links is None:
            raise RuntimeError("the server does not run yet")
        self._links.start_soon(self._run_link, link, endpoint, ended)

    def _make_link(self, transport: Transport, kind: str, whence: str, received: bytes = b"") -> Link:
        self._opened += 1
        link = Link(transport, self, name=f"{kind}:{self._opened}", received=received)
        while len(self._fresh) >= FRESH:
            oldest = next(iter(self._fresh))
            _log.warning("%d links have said no hello: closing the oldest, %s", FRESH, oldest.name)
            del self._fresh[oldest]
            oldest.close()
        self._fresh[link] = None
        _log.debug("link %s from %s", link.name, whence)
        return link

    async def _run_link(self, link: Link, endpoint: str, ended: Callable[[], None]) -> None:
        try:
            await link.run()
        except Exception:  # noqa: BLE001 - a fault in one link must not end the others
            _log.exception("link %s of %s ended by a fault of coworkd's", link.name, endpoint)
        finally:
            self._fresh.pop(link, None)
            self._greeted.pop(link, None)
            if not self._fresh and not self._greeted:
                self._empty.set()
            ended()
        if link.greeted:
            await self._record("link.close", {"link": link.name, "reason": link.ended_by})

    async def _record(self, kind: str, fields: Mapping[str, Any]) -> None:
        try:
            await self._audit.record(kind, fields)
        except CoworkError as error:
            _log.error("%s could not be audited: %s", kind, error.message)


def _listen(endpoint: UnixEndpoint | VsockPort, descriptor: int | None) -> Acceptor:
    if isinstance(endpoint, UnixEndpoint):
        return UnixAcceptor(endpoint, descriptor)
    return VsockAcceptor.open(endpoint, descriptor)


async def dial_vsock(endpoint: VsockEndpoint) -> Transport:
    """Connect to a host. Raises `OSError`."""
    connecting = trio.socket.from_stdlib_socket(open_vsock_socket())
    try:
        await connecting.connect((endpoint.cid, endpoint.port))
    except BaseException:
        connecting.close()
        raise
    return SocketTransport(connecting)
