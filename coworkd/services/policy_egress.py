"""What a session may reach: its profile's settings, and what its host asked for on top. Pure.

Rules
- Both must allow a host, so a request can only take away; bounds are the smaller of both; ways out, proxies and private ranges are the
  profile's alone.
- What a request asks for in vain is said, sentence by sentence, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import structs

from coworkd.model.egress import EgressLimits, EgressSettings, SessionEgress
from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.patterns import split_pattern

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
    """One sentence for each pattern of which the profile allows nothing."""
    rules = Rules(profile)
    given = [*request.allowed, *(pattern for hosts in request.preset_hosts.values() for pattern in hosts)]
    for pattern in dict.fromkeys(given):
        host, port = split_pattern(pattern)
        if host.startswith("*."):
            host = f"x{host[1:]}"
        verdict = rules.decide(host, port or _ANY_PORT, now=0.0)
        if not verdict.allowed:
            yield f"egress: {pattern} stays out: {verdict.reason}"


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
