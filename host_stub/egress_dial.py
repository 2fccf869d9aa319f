"""The way out of one connection that was allowed: resolve, judge every address, connect to the very one that was judged.

Rules
- One address of an answer that may not be dialled refuses the name: who mixes a good and a bad one is rebinding.
- Addresses are tried in turn, IPv6 and IPv4 alternating, the next after `NEXT_S` or at a failure, at most `TRIES`; the first wins.
- A parent proxy resolves by itself; its own address is the owner's and is not judged.
- getaddrinfo(3) cannot be stopped: one that hangs keeps its thread, of which there are `LOOKUPS`. The name service's search domains and
  /etc/hosts are this host's.
- The caller has the deadline; cancelled, nothing is left open.

Sources: RFC 8305; getaddrinfo(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import trio

from coworkd.netpolicy.hosts import is_address
from coworkd.netpolicy.proxy_url import ProxyUrl, parse_proxy_url
from coworkd.proxy.events import Refusal, RefusalKind
from coworkd.proxy.upstream import Handshake, HttpConnect, Socks5Client, compose_basic
from host_stub.egress_rules import Decision, EgressRules

NEXT_S = 0.25
TRIES = 8
LOOKUPS = 24
_RECEIVE_BYTES = 4096

Lookup = Callable[[str], list[str]]


class Refused(Exception):
    """No way out; `refusal` is what the guest is told."""

    def __init__(self, kind: RefusalKind, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(kind=kind, reason=reason)


class Way(NamedTuple):
    """An open way out; the stream is the receiver's."""

    stream: trio.SocketStream
    address: str
    """Numeric, where we resolved."""
    rest: bytes = b""
    """What came behind a proxy's answer."""


def look_up(host: str) -> list[str]:
    """Blocking: the addresses of a name, in the order to try them. Raises `OSError`."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class Dialler:
    """Opens ways out by one set of rules. `lookup` is given for tests."""

    def __init__(self, rules: EgressRules, *, lookup: Lookup = look_up) -> None:
        self._rules = rules
        self._lookup = lookup
        self._lookups = trio.CapacityLimiter(LOOKUPS)

    async def open_way(self, decision: Decision) -> Way:
        """Raises `Refused`."""
        if decision.route != "direct":
            return await self._through(decision)
        addresses = await self._resolve(decision.host)
        for address in addresses:
            why = self._rules.judge(address, decision.port)
            if why is not None:
                raise Refused("address", f"{decision.host} {why}")
        stream, address = await connect_first(take_turns(addresses), decision.port, decision.host)
        return Way(stream, address)

    async def _resolve(self, host: str) -> list[str]:
        if is_address(host):
            return [host]
        try:
            found = await trio.to_thread.run_sync(self._lookup, host, limiter=self._lookups, abandon_on_cancel=True)
        except OSError as error:
            raise Refused("dns", f"{host} has no address here: {error.strerror or error}") from error
        except UnicodeError as error:
            raise Refused("dns", f"{host} is no name that can be looked up") from error
        if not found:
            raise Refused("dns", f"{host} has no address here")
        return found

    async def _through(self, decision: Decision) -> Way:
        proxy = parse_proxy_url(decision.route)
        if proxy is None or proxy.scheme == "https":
            raise Refused("unavailable", "the parent proxy's URL is none that can be used: http:// or socks5h://")
        addresses = await self._resolve(proxy.host)
        stream, _ = await connect_first(take_turns(addresses), proxy.port, proxy.shown)
        try:
            rest = await _hand_shake(stream, _greet(proxy, decision))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return Way(stream, "", rest)


def take_turns(addresses: Sequence[str]) -> list[str]:
    """IPv6 and IPv4 alternating, each family in its order, the first one's family first."""
    families: dict[bool, list[str]] = {}
    for address in addresses:
        families.setdefault(":" in address, []).append(address)
    return [address for turn in zip_longest(*families.values()) for address in turn if address is not None]


Connect = Callable[[str, int], Awaitable[trio.SocketStream]]


async def connect_tcp(address: str, port: int) -> trio.SocketStream:
    """Connect to a numeric address. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await connecting.connect((address, port))
        return trio.SocketStream(connecting)
    except BaseException:
        connecting.close()
        raise


async def connect_first(
    addresses: Sequence[str], port: int, shown: str, *, connect: Connect = connect_tcp
) -> tuple[trio.SocketStream, str]:
    """The first of `addresses` that takes the connection. Raises `Refused`; `shown` names the target in it."""
    won: list[tuple[trio.SocketStream, str]] = []
    last: list[OSError] = []

    async def attempt(address: str, failed: trio.Event, scope: trio.CancelScope) -> None:
        try:
            stream = await connect(address, port)
        except OSError as error:
            last.append(error)
            failed.set()
            return
        if won:
            await trio.aclose_forcefully(stream)
        else:
            won.append((stream, address))
            scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses[:TRIES]:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed, nursery.cancel_scope)
                with trio.move_on_after(NEXT_S):
                    await failed.wait()
    except BaseException:
        for stream, _ in won:
            await trio.aclose_forcefully(stream)
        raise
    if won:
        return won[0]
    number = last[-1].errno if last else None
    why = os.strerror(number) if number else "no answer"
    raise Refused("connect", f"{shown} at port {port} is not reached: {why}")


def _greet(proxy: ProxyUrl, decision: Decision) -> Handshake:
    try:
        if proxy.scheme == "socks5h":
            return Socks5Client(decision.host, decision.port, username=proxy.username, password=proxy.password)
        credentials = None if proxy.username is None else compose_basic(proxy.username, proxy.password or "")
        return HttpConnect(decision.host, decision.port, authorization=credentials)
    except ValueError as error:
        raise Refused("unavailable", f"the parent proxy cannot be asked: {error}") from error


async def _hand_shake(stream: trio.SocketStream, handshake: Handshake) -> bytes:
    try:
        while not handshake.done and handshake.failed is None:
            outgoing = handshake.outgoing()
            if outgoing:
                await stream.send_all(outgoing)
            handshake.receive_data(bytes(await stream.receive_some(_RECEIVE_BYTES)))
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise Refused("connect", "the parent proxy closed the connection") from error
    if handshake.failed is not None:
        raise Refused("allowlist" if handshake.refused_by_policy else "connect", handshake.failed)
    return handshake.rest
