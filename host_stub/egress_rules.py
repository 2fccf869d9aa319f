"""What a guest may reach through this host: the second wall, behind the guest's own policy.

Rules
- Every session's connection was allowed in the guest already; a guest that is not itself any more has only these rules.
- With an allowlist (a file of srt-settings) a host must be on it, by the same rules as in the guest; without one any host may be asked for.
- Always: names of loopback, and addresses that are loopback, link-local, metadata, reserved or this host's own, are refused, before and
  after resolution. Private ranges only where the file or the option says so.
- `allow_addresses` lifts that for single addresses: for a service that runs on this host, and for tests.

Pure but for reading the file. The guard and the matching are `coworkd.netpolicy`, the same as in the guest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from coworkd.model.egress import EgressSettings, SessionEgress
from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.guard import Guard
from coworkd.netpolicy.hosts import BadHost, canonical_host, is_address, is_loopback_name
from coworkd.netpolicy.proxy_url import parse_proxy_url
from coworkd.netpolicy.ranges import AddressSet, parse_address, parse_range
from coworkd.netpolicy.srt import parse_settings
from coworkd.proxy.events import Refusal
from coworkd.settings import BadFile
from coworkd.system.own_address import is_own_address
from host_stub.words import Trouble


class EgressOptions(Struct, frozen=True, kw_only=True):
    """What `cowork-vm` was told about the way out."""

    settings: Path | None = None
    """A file of srt-settings: the hosts any session of this machine may reach at all."""
    parent: str | None = None
    """The URL of a proxy that connections go through, `http://` or `socks5h://`, with user and password where it wants them."""
    allow_private: bool = False
    allow_addresses: tuple[str, ...] = ()
    """Addresses or ranges that may be reached though they are this host's own or loopback."""
    connections: int = 1024
    """Open at once, of all sessions."""


class Decision(Struct, frozen=True, kw_only=True):
    """What was decided before a name is resolved. `host` is canonical where it could be read."""

    host: str
    port: int
    route: str = "direct"
    """`direct`, or a proxy's URL."""
    refusal: Refusal | None = None


class EgressRules:
    """Built once from options; never changes."""

    def __init__(self, options: EgressOptions, *, is_own: Callable[[str], bool] = is_own_address) -> None:
        """Raises `Trouble` for a file or option that cannot be read: nothing is let out by a rule that is not understood."""
        self._is_own = is_own
        self._excepted = AddressSet(_ranges(options.allow_addresses))
        listed = None if options.settings is None else _read(options.settings)
        settings = listed or EgressSettings(source="this host")
        if options.allow_private:
            settings = replace(settings, allow_private=True)
        if options.parent is not None:
            _check_parent(options.parent)
        session = SessionEgress(settings=(settings,), upstream=options.parent or "direct")
        self._rules = Rules(session)
        self._guard = Guard(session)
        self._is_listed = listed is not None

    def decide(self, host: str, port: int, *, now: float) -> Decision:
        """Judge what the guest asked for, as it wrote it; literal addresses for good."""
        try:
            canonical = canonical_host(host)
        except BadHost as error:
            return _refused(host, port, "allowlist", f"malformed host: {error.reason}")
        if self._is_listed:
            verdict = self._rules.decide(canonical, port, now=now)
            if not verdict.allowed:
                return _refused(canonical, port, "allowlist", f"this host's list: {verdict.reason}")
        if is_loopback_name(canonical):
            return _refused(canonical, port, "address", f"{canonical} may not be reached: it names a loopback")
        if is_address(canonical):
            why = self.judge(canonical, port)
            if why is not None:
                return _refused(canonical, port, "address", f"{canonical} may not be reached: {why}")
        route = self._rules.route(canonical, port, tunnel=True)
        return Decision(host=canonical, port=port, route=route)

    def judge(self, address: str, port: int) -> str | None:
        """Why an address may not be dialled, or None."""
        parsed = parse_address(address)
        if parsed is not None and parsed in self._excepted:
            return None
        try:
            is_own = self._is_own(address)
        except OSError as error:
            return f"resolved to an address that could not be judged: {error.strerror}"
        why = self._guard.judge(address, is_own=is_own, port=port)
        return None if why is None else why.replace("this guest's", "this host's")


def _refused(host: str, port: int, kind: str, reason: str) -> Decision:
    refusal = Refusal(kind="address" if kind == "address" else "allowlist", reason=reason)
    return Decision(host=host, port=port, refusal=refusal)


def _read(file: Path) -> EgressSettings:
    remedy = "correct the file that --egress-settings names, or leave the option out"
    try:
        settings = parse_settings(file.read_bytes(), file=str(file))
    except OSError as error:
        raise Trouble("bad_egress_settings", f"{file} cannot be read: {error.strerror}", remedy=remedy) from error
    except BadFile as error:
        raise Trouble("bad_egress_settings", str(error), remedy=remedy) from error
    if settings.presets:
        raise Trouble(
            "bad_egress_settings",
            f"{file}: coworkd.presets are the guest's, this host has no table of them",
            remedy="name the hosts in network.allowedDomains",
        )
    return settings


def _check_parent(url: str) -> None:
    proxy = parse_proxy_url(url)
    if proxy is None or proxy.scheme not in ("http", "socks5h"):
        raise Trouble(
            "bad_parent_proxy",
            "the parent proxy's URL is none that can be used",
            remedy="write it as http://HOST:PORT or socks5h://HOST:PORT",
        )


def _ranges(given: tuple[str, ...]) -> tuple[str, ...]:
    for text in given:
        if parse_range(text) is None:
            raise Trouble(
                "bad_address", f"{text!a} is no address and no range", remedy="write --allow-address as 192.0.2.1"
            )
    return given
