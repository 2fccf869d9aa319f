"""What doctor's network probes ask, made up."""

from __future__ import annotations

from typing import Any

from coworkd.model.calls import EgressPresets
from coworkd.services.doctor_network_probes import NetworkSources

NO_PRESETS = EgressPresets(presets={}, file=None, made_at=None)


def sources(**facts: Any) -> NetworkSources:
    """Every source tells the fact of its name, or nothing."""
    told: dict[str, Any] = {
        "egress_pid": None,
        "egress_degraded": (),
        "presets": NO_PRESETS,
        "upstream": "direct",
        "default_routes": (),
        "reachability": None,
        **facts,
    }
    host_uri = told.pop("host_uri", "unix:///nowhere")
    return NetworkSources(host_uri=host_uri, **{name: lambda fact=fact: fact for name, fact in told.items()})
