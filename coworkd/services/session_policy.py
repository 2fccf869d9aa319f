"""What holds for a session, in the words of `session.policy`. Pure.

Lists are told as far as a message takes them, and how many entries are not is said: the answer about a change that was made is never
"too large".
"""

from __future__ import annotations

from coworkd.model.calls import EgressLayer, SessionPolicy
from coworkd.model.egress import Allowance, EgressSettings, SessionEgress
from coworkd.model.policy import EffectivePolicy

LIST_LIMIT = 2000
LIST_LIMIT_CHARACTERS = 128 * 1024
"""Of each list: with those of every layer they fit into one message, whatever the files hold."""


def describe_policy(
    policy: EffectivePolicy, egress: SessionEgress, allowances: tuple[Allowance, ...], narrowed: tuple[str, ...]
) -> SessionPolicy:
    """In words a host may be shown: a profile's upstream holds no password (`policy.keys` refuses one), parent proxies are left out."""
    return SessionPolicy(
        profile=policy.profile.name,
        egress=tuple(map(_describe_layer, egress.settings)),
        allowances=allowances,
        upstream=egress.upstream,
        egress_limits=egress.limits,
        limits=policy.profile.limits,
        narrowed=(*policy.narrowed, *narrowed),
    )


def _describe_layer(layer: EgressSettings) -> EgressLayer:
    inspected = layer.inspect.domains if layer.inspect is not None else ()
    lists = (layer.allowed, layer.denied, inspected, layer.warnings)
    allowed, denied, inspected, warnings = (_begin(entries) for entries in lists)
    return EgressLayer(
        source=layer.source,
        allowed=allowed,
        denied=denied,
        presets={preset: layer.preset_hosts.get(preset, ()) for preset in layer.presets},
        allow_private=layer.allow_private,
        inspected=inspected,
        warnings=warnings,
        left_out=sum(map(len, lists)) - len(allowed) - len(denied) - len(inspected) - len(warnings),
    )


def _begin(entries: tuple[str, ...]) -> tuple[str, ...]:
    """As many as are told, by number and by size."""
    told, room = 0, LIST_LIMIT_CHARACTERS
    for entry in entries[:LIST_LIMIT]:
        room -= len(entry)
        if room < 0:
            break
        told += 1
    return entries[:told]
