"""The guest's own network, as far as a host wants to know it: what `system.network_probe` prints."""

from __future__ import annotations

from msgspec import Struct


class NetworkDevice(Struct, frozen=True, kw_only=True):
    """A network device that is up; `addresses` as `ADDRESS/PREFIX`, link-local ones left out."""

    name: str
    addresses: tuple[str, ...] = ()


class DefaultRoute(Struct, frozen=True, kw_only=True):
    """A way to everywhere. `gateway` is empty for a device that needs none."""

    device: str
    gateway: str = ""


class NetworkFacts(Struct, frozen=True, kw_only=True):
    """Devices but for the loopback, and default routes of both families."""

    devices: tuple[NetworkDevice, ...] = ()
    routes: tuple[DefaultRoute, ...] = ()
