"""What a session may reach: its profile's settings, and what its host asked for on top. Pure.

Rules
- Both must allow a host, so a request can only take away; bounds are the smaller of both; ways out, proxies and private ranges are the
  profile's alone.
- What a request asks for in vain is said, sentence by sentence, never dropped in silence: a pattern of which nothing is open, and one of
  which only a part is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from msgspec import structs

from coworkd.model.egress import EgressLimits, EgressSettings, SessionEgress
from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.patterns import PatternIndex, split_pattern

_ANY_PORT = 443
_SENTENCES_LIMIT = 100


def compose_session_egress(
    profile: EgressSettings, upstream: str, request: EgressSettings | None, *, limits: Collection[str] = ()
) -> tuple[SessionEgress, tuple[str, ...]]:
    """What holds, and what of the request does not. `limits` names those the request gives: what it leaves out is the profile's."""
    alone = SessionEgress(settings=(profile,), upstream=upstream, limits=profile.limits)
    if request is None:
        return alone, ()
    both = structs.replace(alone, settings=(profile, request), limits=_smaller(profile.limits, request.limits, limits))
    sentences = [
        *_narrowed_hosts(alone, request),
        *_narrowed_ways(profile, request),
        *_narrowed_limits(profile.limits, request.limits, limits),
    ]
    if len(sentences) > _SENTENCES_LIMIT:
        more = len(sentences) - _SENTENCES_LIMIT
        sentences[_SENTENCES_LIMIT:] = [f"egress: {more} more patterns stay out: the profile does not allow them"]
    return both, tuple(sentences)


def _smaller(profile: EgressLimits, request: EgressLimits, given: Collection[str]) -> EgressLimits:
    return structs.replace(profile, **{name: min(getattr(profile, name), getattr(request, name)) for name in given})


def _narrowed_hosts(profile: SessionEgress, request: EgressSettings) -> Iterator[str]:
    rules, (settings,) = Rules(profile), profile.settings
    reach = _Reach(_patterns(settings), settings.denied)
    for pattern in dict.fromkeys(_patterns(request)):
        host, port = split_pattern(pattern)
        if reach.has_none(host, port):
            reason = rules.decide(host.replace("*", "x", 1), port or _ANY_PORT, now=0.0).reason
            yield f"egress: {pattern} stays out: {reason}"
        elif not reach.has_all(host, port):
            yield f"egress: {pattern} is open only in part: as far as {settings.source} allows it"


def _patterns(settings: EgressSettings) -> list[str]:
    return [*settings.allowed, *(pattern for hosts in settings.preset_hosts.values() for pattern in hosts)]


class _Reach:
    """How much of another pattern a list allows, by look-ups. A wildcard stands for itself where a host is looked for: it is found by
    those that reach at least as far.
    """

    def __init__(self, allowed: Iterable[str], denied: Iterable[str]) -> None:
        self._allowed = PatternIndex(allowed := list(allowed))
        self._denied = PatternIndex(denied)
        self._hosts: dict[str, set[int | None]] = {}
        self._inside: dict[str, set[int | None]] = {}
        """Domain → ports of the patterns that name something below it."""
        self._below: dict[str, set[int | None]] = {}
        for host, port in map(split_pattern, allowed):
            self._hosts.setdefault(host, set()).add(port)
            if host.startswith("*."):
                self._below.setdefault(host[2:], set()).add(port)
            for domain in _domains(host):
                self._inside.setdefault(domain, set()).add(port)

    def has_all(self, host: str, port: int | None) -> bool:
        """Whether every host and port of the pattern is allowed, denials aside."""
        return self._allowed.find(host, port or 0) is not None

    def has_none(self, host: str, port: int | None) -> bool:
        """Whether no host and port of the pattern is allowed."""
        if self._denied.find(host, port or 0) is not None:
            return True
        ports = set(self._hosts.get(host, ())).union(*(self._below.get(domain, ()) for domain in _domains(host)))
        if host.startswith("*."):
            ports |= self._inside.get(host[2:], set())
        return not ports if port is None else not ports & {None, port}


def _domains(host: str) -> Iterator[str]:
    """Every domain a name lies in."""
    _, dot, domain = host.partition(".")
    while dot:
        yield domain
        _, dot, domain = domain.partition(".")


def _narrowed_ways(profile: EgressSettings, request: EgressSettings) -> Iterator[str]:
    if request.parent is not None:
        yield "egress: network.parentProxy is left out: the way out is the profile's to say (egress.upstream)"
    if request.mitm is not None:
        yield "egress: network.mitmProxy is left out: the way out is the profile's to say"
    if request.allow_private and not profile.allow_private:
        yield "egress: coworkd.allow_private is left out: the profile's settings do not give it"


def _narrowed_limits(profile: EgressLimits, request: EgressLimits, given: Collection[str]) -> Iterator[str]:
    for name in given:
        asked, bound = getattr(request, name), getattr(profile, name)
        if asked > bound:
            yield f"egress: coworkd.limits.{name} {asked:g} is narrowed to {bound:g}"
