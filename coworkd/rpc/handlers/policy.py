"""`policy.*`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import PoliciesApi
from coworkd.rpc.methods import Method


def policy_methods(policies: PoliciesApi) -> tuple[Method, ...]:
    """The methods of policies."""

    async def show(params: calls.PolicyShow, link: LinkPort) -> Mapping[str, Any]:
        return policies.show(params)

    async def reload(params: calls.Mutating, link: LinkPort) -> calls.PolicyReloaded:
        return await policies.reload()

    return (
        Method(name="policy.show", params=calls.PolicyShow, handler=show),
        Method(name="policy.reload", params=calls.Mutating, handler=reload),
    )
