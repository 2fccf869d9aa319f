"""`process.set_limits`."""

from __future__ import annotations

from coworkd.model import calls_limits
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import ProcessLimitsApi
from coworkd.rpc.methods import Method


def process_limits_methods(limits: ProcessLimitsApi) -> tuple[Method, ...]:
    """The methods of what a command may have."""

    async def set_limits(params: calls_limits.SetProcessLimits, link: LinkPort) -> calls_limits.LimitsSet:
        return await limits.set_limits(params)

    return (Method(name="process.set_limits", params=calls_limits.SetProcessLimits, handler=set_limits),)
