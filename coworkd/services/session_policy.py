"""What holds for a session, in the words of `session.policy`. Pure."""

from __future__ import annotations

from coworkd.model.calls import EgressLayer, SessionPolicy
from coworkd.model.egress import Allowance, SessionEgress
from coworkd.model.policy import EffectivePolicy


def describe_policy(
    policy: EffectivePolicy, egress: SessionEgress, allowances: tuple[Allowance, ...], narrowed: tuple[str, ...]
) -> SessionPolicy:
    """In words a host may be shown: a profile's upstream holds no password (`policy.keys` refuses one), parent proxies are left out."""
    return SessionPolicy(
        profile=policy.profile.name,
        egress=tuple(
            EgressLayer(
                source=layer.source,
                allowed=layer.allowed,
                denied=layer.denied,
                presets={preset: layer.preset_hosts.get(preset, ()) for preset in layer.presets},
                allow_private=layer.allow_private,
                inspected=layer.inspect.domains if layer.inspect is not None else (),
                warnings=layer.warnings,
            )
            for layer in egress.settings
        ),
        allowances=allowances,
        upstream=egress.upstream,
        egress_limits=egress.limits,
        limits=policy.profile.limits,
        narrowed=(*policy.narrowed, *narrowed),
    )
