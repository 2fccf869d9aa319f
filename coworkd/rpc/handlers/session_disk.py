"""`session.usage`, `session.prune`, `session.retention`."""

from __future__ import annotations

from coworkd.model import calls_storage
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import PruneApi, RetentionApi, UsageApi
from coworkd.rpc.methods import Method


def session_disk_methods(meter: UsageApi, pruning: PruneApi, retention: RetentionApi) -> tuple[Method, ...]:
    """The methods of what sessions take on the disk."""

    async def usage(params: calls_storage.SessionUsageParams, link: LinkPort) -> calls_storage.SessionUsages:
        return await meter.usage(params)

    async def prune(params: calls_storage.SessionPrune, link: LinkPort) -> calls_storage.SessionPruned:
        return await pruning.prune(params)

    async def retain(params: calls_storage.SessionRetention, link: LinkPort) -> calls_storage.SessionRetained:
        return await retention.retention(params)

    return (
        Method(name="session.usage", params=calls_storage.SessionUsageParams, handler=usage),
        Method(name="session.prune", params=calls_storage.SessionPrune, handler=prune),
        Method(name="session.retention", params=calls_storage.SessionRetention, handler=retain),
    )
