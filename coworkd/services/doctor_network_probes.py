"""The facts of the network for `services.doctor_network`: most are coworkd's own knowledge, three are tried here.

Blocking, so for a worker thread; each try has a deadline and is closed again. It judges nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from coworkd.model.calls import EgressPresets
from coworkd.netpolicy.proxy_url import ProxyUrl, parse_proxy_url
from coworkd.system.vsock import open_vsock_socket
from coworkd.wire.endpoint import UnixEndpoint, VsockEndpoint, parse_endpoint

CONNECT_DEADLINE_S = 5.0


@dataclass(frozen=True)
class NetworkSources:
    """Whom to ask, from a worker thread: each only reads what is there."""

    egress_pid: Callable[[], int | None]
    egress_degraded: Callable[[], tuple[str, ...]]
    presets: Callable[[], EgressPresets]
    upstream: Callable[[], str]
    """As the default profile has it, credentials included."""
    host_uri: str
    """Where the host serves egress."""
    default_routes: Callable[[], tuple[str, ...]]
    reachability: Callable[[], tuple[str, str | None] | None]


class SystemNetworkProbes:
    """Implements `doctor_network.NetworkProbes` but for `read`."""

    def __init__(self, sources: NetworkSources) -> None:
        self._sources = sources

    def egress_pid(self) -> int | None:
        return self._sources.egress_pid()

    def egress_degraded(self) -> tuple[str, ...]:
        return self._sources.egress_degraded()

    def presets(self) -> EgressPresets:
        return self._sources.presets()

    def upstream(self) -> str:
        proxy = self._proxy()
        return self._sources.upstream() if proxy is None else proxy.shown

    def default_routes(self) -> tuple[str, ...]:
        return self._sources.default_routes()

    def reachability(self) -> tuple[str, str | None] | None:
        return self._sources.reachability()

    def resolve(self, host: str) -> None:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)

    def try_upstream(self) -> None:
        proxy = self._proxy()
        if proxy is not None:
            socket.create_connection((proxy.host, proxy.port), timeout=CONNECT_DEADLINE_S).close()
            return
        endpoint = parse_endpoint(self._sources.host_uri)
        if isinstance(endpoint, UnixEndpoint):
            _connect(socket.socket(socket.AF_UNIX), endpoint.path)
        elif isinstance(endpoint, VsockEndpoint):
            _connect(open_vsock_socket(), (endpoint.cid, endpoint.port))
        else:
            raise OSError(f"{endpoint} is no way to the host")

    def _proxy(self) -> ProxyUrl | None:
        upstream = self._sources.upstream()
        return None if upstream in ("direct", "host") else parse_proxy_url(upstream)


def _connect(opened: socket.socket, address: str | tuple[int, int]) -> None:
    with opened:
        opened.settimeout(CONNECT_DEADLINE_S)
        opened.connect(address)
