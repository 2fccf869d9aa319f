"""`egress.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import EgressApi
from coworkd.rpc.methods import Method


def egress_methods(egress: EgressApi) -> tuple[Method, ...]:
    """The methods of the way out."""

    async def check(params: calls.EgressCheck, link: LinkPort) -> calls.EgressChecked:
        return await egress.check(params)

    async def log(params: calls.EgressLog, link: LinkPort) -> calls.EgressRecords:
        return await egress.log(params)

    async def allow(params: calls.EgressAllow, link: LinkPort) -> calls.EgressAllowed:
        return await egress.allow(params)

    async def status(params: calls.NoParams, link: LinkPort) -> calls.EgressStatus:
        return await egress.status()

    async def presets(params: calls.NoParams, link: LinkPort) -> calls.EgressPresets:
        return await egress.presets()

    return (
        Method(name="egress.check", params=calls.EgressCheck, handler=check),
        Method(name="egress.log", params=calls.EgressLog, handler=log),
        Method(name="egress.allow", params=calls.EgressAllow, handler=allow),
        Method(name="egress.status", params=calls.NoParams, handler=status),
        Method(name="egress.presets", params=calls.NoParams, handler=presets),
    )
