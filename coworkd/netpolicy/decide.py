"""Decide: whether a session may reach a host and port, by which rule, and which way the connection takes.

Rules
- Denied patterns come first, in every layer; then an allowance lifts the allowlists, but for a strict layer's; else every layer must
  allow the host, by its list or by a preset. What nobody allows is refused, and so is everything where there is no layer.
- What is decided on is the canonical host, which the verdict holds: it is the one to dial.
- Way out, proxies and private ranges are the profile's to say (`settings[0]`): what a request adds can only take away.
- `Rules` never changes; a new policy is a new one. `decide` does no I/O, never raises and costs O(labels), not O(patterns).

Does not look at resolved addresses: that is `guard`.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from coworkd.model.egress import Allowance, EgressSettings, Inspection, MitmProxy, SessionEgress, Verdict
from coworkd.netpolicy.hosts import BadHost, canonical_host
from coworkd.netpolicy.no_proxy import NoProxy
from coworkd.netpolicy.patterns import PatternIndex

MATCHES_NOTHING = ""
"""Stands in `Inspection.token_sha256` where two layers approve no token in common: no digest is empty."""


class Rules:
    """The rules of one session, indexed. `limits` are those of the session."""

    def __init__(self, session: SessionEgress) -> None:
        self.limits = session.limits
        self._layers = [_Layer(settings) for settings in session.settings]
        self._allowances = [(allowance, PatternIndex([allowance.pattern])) for allowance in session.allowances]
        self._ways = _Ways(session)

    def decide(self, host: str, port: int, *, now: float) -> Verdict:
        """Judge `host` as a client wrote it; `now` is for allowances, seconds since the epoch."""
        try:
            canonical = canonical_host(host)
        except BadHost as error:
            return _verdict(_printable(host), port, None, f"malformed host: {error.reason}")
        if not 1 <= port <= 65535:
            return _verdict(canonical, port, None, f"{port} is no port: there are 1 to 65535")
        for layer in self._layers:
            pattern = layer.denied.find(canonical, port)
            if pattern is not None:
                rule = f"{pattern} in {layer.source}"
                words = layer.reasons.get(pattern, "")
                return _verdict(canonical, port, rule, "host is on the deny list", where=rule, policy_words=words)
        lifted = self._allowance(canonical, port, now)
        rules = [] if lifted is None else [f"{lifted.pattern}, allowed for a time"]
        for layer in self._layers:
            if lifted is not None and not layer.strict:
                continue
            allowed = layer.allows(canonical, port)
            if allowed is None:
                return _verdict(canonical, port, None, "host is not on the allow list", where=layer.source)
            rules.append(allowed)
        if not self._layers:
            return _verdict(canonical, port, None, "host is not on the allow list", where="there is none")
        rule = "; ".join(rules)
        until = None if lifted is None else lifted.until
        return Verdict(allowed=True, host=canonical, port=port, rule=rule, reason=f"allowed by {rule}", until=until)

    def inspects(self, host: str) -> Inspection | None:
        """How the TLS of a connection to the canonical `host` is opened; None where it stays closed.

        Where several layers name the host a token must be approved by each that asks for one.
        """
        found: Inspection | None = None
        for layer in self._layers:
            if layer.inspection is not None and layer.inspected.find(host, 0) is not None:
                found = layer.inspection if found is None else _both(found, layer.inspection)
        return found

    def mitm_for(self, host: str) -> MitmProxy | None:
        """The proxy on a unix socket that takes connections to the canonical `host`."""
        return self._ways.mitm_for(host)

    def route(self, host: str, port: int, *, tunnel: bool) -> str:
        """`direct`, `host`, or the URL of the proxy that a connection to the canonical `host` goes through.

        The URL may hold credentials: `proxy_url.parse_proxy_url` takes it apart, and its `shown` is for logs.
        """
        return self._ways.route(host, tunnel=tunnel)

    def _allowance(self, host: str, port: int, now: float) -> Allowance | None:
        for allowance, index in self._allowances:
            if allowance.until > now and index.find(host, port) is not None:
                return allowance
        return None


class _Layer:
    """One `EgressSettings`, indexed."""

    __slots__ = ("_allowed", "_presets", "denied", "inspected", "inspection", "reasons", "source", "strict")

    def __init__(self, settings: EgressSettings) -> None:
        self.source = settings.source
        self.strict = settings.strict
        self.reasons = settings.denied_reasons
        self.denied = PatternIndex(settings.denied)
        self._allowed = PatternIndex(settings.allowed)
        self._presets = [
            (preset, PatternIndex(settings.preset_hosts.get(preset, ()))) for preset in dict.fromkeys(settings.presets)
        ]
        self.inspection = settings.inspect
        self.inspected = PatternIndex(settings.inspect.domains if settings.inspect is not None else ())

    def allows(self, host: str, port: int) -> str | None:
        """The rule that allows, in words."""
        pattern = self._allowed.find(host, port)
        if pattern is not None:
            return f"{pattern} in {self.source}"
        for preset, index in self._presets:
            pattern = index.find(host, port)
            if pattern is not None:
                return f"{pattern} (preset {preset}) in {self.source}"
        return None


class _Ways:
    """The ways out: `SessionEgress.upstream`, else what the profile's settings say."""

    __slots__ = ("_mitm", "_mitm_domains", "_no_proxy", "_plain", "_tunnel", "_upstream")

    def __init__(self, session: SessionEgress) -> None:
        profile = session.settings[0] if session.settings else None
        parent = profile.parent if profile is not None else None
        self._upstream = session.upstream
        # A URL that is no proxy stays the way: who set one does not expect to go without, so it is refused when it is dialled.
        self._plain = parent.http if parent is not None else None
        self._tunnel = (parent.https if parent is not None else None) or self._plain
        self._no_proxy = NoProxy(parent.no_proxy if parent is not None else "")
        self._mitm = profile.mitm if profile is not None else None
        self._mitm_domains = PatternIndex(self._mitm.domains if self._mitm is not None else ())

    def mitm_for(self, host: str) -> MitmProxy | None:
        return self._mitm if self._mitm_domains.find(host, 0) is not None else None

    def route(self, host: str, *, tunnel: bool) -> str:
        if self._upstream != "direct":
            return self._upstream
        parent = self._tunnel if tunnel else self._plain
        return "direct" if parent is None or self._no_proxy.covers(host) else parent


def _verdict(
    host: str, port: int, rule: str | None, sentence: str, *, where: str = "", policy_words: str = ""
) -> Verdict:
    told = policy_words or sentence
    reason = f"{told} ({where})" if where and not policy_words else told
    return Verdict(allowed=False, host=host, port=port, rule=rule, reason=reason, told=told, policy_words=policy_words)


def _printable(host: str) -> str:
    return ascii(host[:255])[1:-1]


def _both(first: Inspection, second: Inspection) -> Inspection:
    tokens: Sequence[str]
    if first.token_sha256 and second.token_sha256:
        tokens = [token for token in first.token_sha256 if token in second.token_sha256] or [MATCHES_NOTHING]
    else:
        tokens = first.token_sha256 or second.token_sha256
    return replace(first, domains=tuple(dict.fromkeys(first.domains + second.domains)), token_sha256=tuple(tokens))
