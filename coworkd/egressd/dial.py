"""The way out for one connection that was allowed: resolve, judge, connect, and ask the proxies before us.

Ways: `direct`; `host`, over vsock or a unix socket; a parent proxy (`http`, `https`, `socks5h`); srt's proxy on a unix socket for some
domains, which comes before all others.

Rules
- Directly: every address of the answer is judged before any is dialled; one that may not be dialled refuses the name (who mixes a good and
  a bad one is rebinding). What was judged is dialled, as a number, and the peer is looked at once more.
- By a proxy: it resolves, and it is its business where to; literal addresses and `localhost` are judged here all the same. The proxy's own
  address is the admin's, and is not judged.
- AF_VSOCK is used where `host_uri` says so, and nowhere else.
- The owner has the deadline: `cancel` closes everything that was not handed over.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from coworkd.egressd.asking import Asking
from coworkd.egressd.loop import Turning
from coworkd.egressd.own_addresses import OwnAddresses
from coworkd.egressd.race import Endpoint, Race, connect_words, take_turns
from coworkd.egressd.resolve import NotFound, Resolver, Waiter
from coworkd.egressd.tls_leg import ParentTrust, TlsLeg
from coworkd.netpolicy.guard import Guard
from coworkd.netpolicy.hosts import is_address, is_loopback_name
from coworkd.netpolicy.proxy_url import ProxyUrl, parse_proxy_url
from coworkd.proxy.events import Refusal, RefusalKind
from coworkd.proxy.upstream import Handshake, HttpConnect, Socks5Client, compose_basic

_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_AF_VSOCK = 40
"""AF_VSOCK (linux/socket.h), which not every build of Python names."""


class Target(NamedTuple):
    """What is to be reached, and how."""

    session: str
    host: str
    """Canonical."""
    port: int
    tunnel: bool
    route: str
    """As `netpolicy.decide.Rules.route` has it."""
    mitm_path: str | None = None


class Way(NamedTuple):
    """An open way; the socket is its receiver's."""

    connection: socket.socket
    registered: bool
    """Whether the loop has the socket, asking for nothing."""
    address: str = ""
    """The server's address where we resolved."""
    rest: bytes = b""
    """What came behind a proxy's answer: the server's first bytes."""
    absolute_form: bool = False
    """The other end is a proxy that is to be told the whole URL of a plain request."""
    authorization: str | None = None
    """Proxy-Authorization for it."""


class Means(NamedTuple):
    """What every dial works with."""

    loop: Turning
    resolver: Resolver
    own: OwnAddresses
    host_uri: str
    parent_trust: ParentTrust


OnWay = Callable[["Way | Refusal"], None]


class Dial:
    """One way wanted. Calls `on_way` once, perhaps from within `start`; never after `cancel`.

    `upstream` names the way for the records: `direct`, `host`, or a proxy's URL without credentials.
    """

    __slots__ = (
        "_address",
        "_asking",
        "_connection",
        "_guard",
        "_leg",
        "_means",
        "_on_way",
        "_proxy",
        "_race",
        "_registered",
        "_target",
        "_waiter",
        "upstream",
    )

    def __init__(self, means: Means, guard: Guard, target: Target, on_way: OnWay) -> None:
        self._means = means
        self._guard = guard
        self._target = target
        self._on_way: OnWay | None = on_way
        self._waiter: Waiter | None = None
        self._race: Race | None = None
        self._asking: Asking | None = None
        self._connection: socket.socket | None = None
        self._leg: TlsLeg | None = None
        self._registered = False
        self._address = ""
        self._proxy: ProxyUrl | None = None
        self.upstream = target.route
        if target.mitm_path is not None:
            self.upstream = f"unix://{target.mitm_path}"
        elif target.route not in ("direct", "host"):
            self._proxy = parse_proxy_url(target.route)
            self.upstream = self._proxy.shown if self._proxy is not None else "an unusable proxy"

    def start(self) -> None:
        """Begin; see the class."""
        target = self._target
        if is_loopback_name(target.host):
            self._refuse("address", f"{target.host} may not be reached: it names a loopback")
            return
        if is_address(target.host):
            why = self._judge(target.host)
            if why is not None:
                self._refuse("address", f"{target.host} may not be reached: {why}")
                return
        if target.mitm_path is not None:
            self._connect([Endpoint(socket.AF_UNIX, target.mitm_path)])
        elif self.upstream == "direct":
            self._find(target.host, target.port)
        elif self.upstream == "host":
            self._connect_host()
        elif self._proxy is None:
            self._refuse(
                "unavailable", f"the upstream is {self.upstream}, which coworkd-egress cannot use; tell an admin"
            )
        else:
            self._find(self._proxy.host, self._proxy.port)

    def cancel(self) -> None:
        """Give up, closing everything."""
        self._on_way = None
        for part in (self._waiter, self._race, self._asking):
            if part is not None:
                part.cancel()
        self._waiter = self._race = self._asking = None
        if self._connection is not None:
            self._means.loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

    # -- addresses ----------------------------------------------------------------------------------------------

    def _find(self, host: str, port: int) -> None:
        if is_address(host):
            self._connect(take_turns([host], port))
        else:
            resolver = self._means.resolver
            found = self._means.loop.guard(lambda found: self._found(found, host, port))
            self._waiter = resolver.resolve(self._target.session, host, found)

    def _found(self, found: list[str] | NotFound, host: str, port: int) -> None:
        self._waiter = None
        if isinstance(found, NotFound):
            self._refuse("dns" if self._proxy is None else "connect", f"{host} {found}")
            return
        if self._proxy is None:
            for address in found:
                why = self._judge(address)
                if why is not None:
                    self._refuse("address", f"{host} {why}")
                    return
        self._connect(take_turns(found, port))

    def _judge(self, address: str) -> str | None:
        """Why it may not be dialled."""
        try:
            is_own = self._means.own.has(address)
        except OSError as error:
            return f"resolved to an address that could not be judged: {error.strerror}"
        return self._guard.judge(address, is_own=is_own, port=self._target.port)

    def _connect_host(self) -> None:
        kind, _, place = self._means.host_uri.partition("://")
        cid, _, port = place.partition(":")
        if kind == "unix" and place.startswith("/"):
            self._connect([Endpoint(socket.AF_UNIX, place)])
        elif kind == "vsock" and cid.isdecimal() and port.isdecimal():
            self._connect([Endpoint(_AF_VSOCK, (int(cid), int(port)))])
        else:
            self._refuse("unavailable", "the way through the host is not configured; tell an admin")

    # -- connections --------------------------------------------------------------------------------------------

    def _connect(self, endpoints: Sequence[Endpoint]) -> None:
        self._race = Race(self._means.loop, endpoints, self._connected, self._not_connected)
        self._race.start()

    def _connected(self, connection: socket.socket, endpoint: Endpoint) -> None:
        self._registered = self._race is not None and self._race.registered
        self._race = None
        self._connection = connection
        if self._proxy is not None and self._proxy.scheme == "https":
            self._speak_tls(connection, self._proxy.host)
        if self.upstream == "direct":
            try:
                is_own = connection.getsockname()[0] == connection.getpeername()[0]
            except OSError as error:  # it was reset since
                self._not_connected(error.errno or errno.EIO)
                return
            if is_own:
                self._refuse("address", f"{self._target.host} resolved to one of this guest's own addresses")
                return
            self._address = str(endpoint.address[0])
            self._open()
        elif self._connection is None:
            return  # TLS could not begin
        elif self._is_asked_plainly:
            self._open()
        else:
            self._ask(self._connection)

    def _speak_tls(self, connection: socket.socket, host: str) -> None:
        """From here on the connection is the plain end of a leg in TLS."""
        try:
            leg = TlsLeg(self._means.loop, connection, self._means.parent_trust.context(), host)
        except OSError as error:
            self._refuse("unavailable", f"the way out by {self.upstream} is not reached now: {error.strerror or error}")
            return
        self._leg = leg
        self._connection = leg.plain
        registered, self._registered = self._registered, False
        leg.start(registered=registered)

    def _not_connected(self, number: int) -> None:
        self._race = None
        target = self._target
        where = f"{target.host}:{target.port}" if self.upstream == "direct" else f"the way out by {self.upstream}"
        if number in _SCARCE:
            self._refuse("unavailable", f"{where} is not reached now: {connect_words(number)}")
        elif number == errno.ETIMEDOUT:
            self._refuse("timeout", f"{where} does not answer")
        else:
            self._refuse("connect", f"{where} is not reached: {connect_words(number)}")

    @property
    def _is_asked_plainly(self) -> bool:
        """Whether the proxy takes a plain request as such."""
        if self._target.tunnel:
            return False
        return self._target.mitm_path is not None or (self._proxy is not None and self._proxy.scheme != "socks5h")

    def _ask(self, connection: socket.socket) -> None:
        try:
            handshake = self._compose_handshake()
        except ValueError as error:
            self._refuse("unavailable", f"{self.upstream} cannot be asked: {error}")
            return
        self._asking = Asking(
            self._means.loop, connection, handshake, f"the way out by {self.upstream}", self._asked, self._not_asked
        )
        self._asking.start(registered=self._registered)

    def _compose_handshake(self) -> Handshake:
        host, port, proxy = self._target.host, self._target.port, self._proxy
        if proxy is None:
            return HttpConnect(host, port, session=self._target.session if self.upstream == "host" else None)
        if proxy.scheme != "socks5h":
            return HttpConnect(host, port, authorization=_authorization(proxy))
        return Socks5Client(host, port, username=proxy.username, password=proxy.password)

    def _asked(self, rest: bytes) -> None:
        self._registered = True
        self._open(rest)

    def _not_asked(self, kind: RefusalKind, reason: str) -> None:
        if self._leg is not None and self._leg.failed is not None:
            reason = f"the way out by {self.upstream} is not open: {self._leg.failed}"
        self._refuse(kind, reason)

    # -- the end ------------------------------------------------------------------------------------------------

    def _open(self, rest: bytes = b"") -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        plain = self._is_asked_plainly
        self._finish(
            Way(
                connection=connection,
                registered=self._registered,
                address=self._address,
                rest=rest,
                absolute_form=plain,
                authorization=_authorization(self._proxy) if plain and self._proxy is not None else None,
            )
        )

    def _refuse(self, kind: RefusalKind, reason: str) -> None:
        self._finish(Refusal(kind=kind, reason=reason))

    def _finish(self, outcome: Way | Refusal) -> None:
        on_way = self._on_way
        self.cancel()
        if on_way is not None:
            on_way(outcome)
        elif isinstance(outcome, Way):
            outcome.connection.close()


def _authorization(proxy: ProxyUrl) -> str | None:
    return None if proxy.username is None else compose_basic(proxy.username, proxy.password or "")
