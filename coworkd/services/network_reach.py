"""Whether a target can be reached the way a session's connections go: directly, by a parent proxy, or by the host.

A connection is made and closed; nothing is sent beyond the proxy's handshake, which counts as reached only once the proxy says
that its way is open. Every failure is a sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from coworkd.netpolicy.proxy_url import ProxyUrl, parse_proxy_url
from coworkd.proxy.upstream import Handshake, HttpConnect, Socks5Client, compose_basic
from coworkd.system.vsock import open_vsock_socket
from coworkd.wire.endpoint import UnixEndpoint, VsockEndpoint, parse_endpoint

ASKED_BY = "coworkd"
"""What stands in Cowork-Session: a name no session can have."""
_RECEIVE_BYTES = 4096

OpenTcp = Callable[[str, int], Awaitable[trio.abc.Stream]]
OpenHost = Callable[[str], Awaitable[trio.abc.Stream]]


def split_target(target: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, as `config` has checked it."""
    host, _, port = target.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def open_host_stream(uri: str) -> trio.SocketStream:
    """Connect to where the host serves egress: `unix:///PATH` or `vsock://CID:PORT`. Raises `OSError`."""
    endpoint = parse_endpoint(uri)
    if isinstance(endpoint, UnixEndpoint):
        return await trio.open_unix_socket(endpoint.path)
    assert isinstance(endpoint, VsockEndpoint), "config takes no other"
    opened = trio.socket.from_stdlib_socket(open_vsock_socket())
    try:
        await opened.connect((endpoint.cid, endpoint.port))
    except BaseException:
        opened.close()
        raise
    return trio.SocketStream(opened)


async def reach(
    target: str,
    *,
    upstream: str,
    host_uri: str,
    open_tcp: OpenTcp = trio.open_tcp_stream,
    open_host: OpenHost = open_host_stream,
) -> str | None:
    """Connect and close; None, or the sentence why not. The caller has the deadline; cancelled, nothing is left open."""
    host, port = split_target(target)
    proxy = parse_proxy_url(upstream) if upstream not in ("direct", "host") else None
    if upstream not in ("direct", "host") and (proxy is None or proxy.scheme == "https"):
        return "the parent proxy's URL is none that can be tried"
    try:
        if upstream == "host":
            return await _hand_shake(await open_host(host_uri), HttpConnect(host, port, session=ASKED_BY))
        if proxy is not None:
            return await _hand_shake(await open_tcp(proxy.host, proxy.port), _greet(proxy, host, port))
        await trio.aclose_forcefully(await open_tcp(host, port))
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        return _sentence(error)
    return None


def _greet(proxy: ProxyUrl, host: str, port: int) -> Handshake:
    if proxy.scheme == "socks5h":
        return Socks5Client(host, port, username=proxy.username, password=proxy.password)
    credentials = None if proxy.username is None else compose_basic(proxy.username, proxy.password or "")
    return HttpConnect(host, port, authorization=credentials)


async def _hand_shake(stream: trio.abc.Stream, handshake: Handshake) -> str | None:
    try:
        while not handshake.done and handshake.failed is None:
            outgoing = handshake.outgoing()
            if outgoing:
                await stream.send_all(outgoing)
            handshake.receive_data(bytes(await stream.receive_some(_RECEIVE_BYTES)))
        return handshake.failed
    finally:
        await trio.aclose_forcefully(stream)


def _sentence(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError):  # what trio raises of several addresses has the reason behind it
        error = cause
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
