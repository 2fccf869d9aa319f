"""`update.*`."""

from __future__ import annotations

from coworkd.model import calls, calls_update
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import UpdateApi
from coworkd.rpc.methods import Method


def update_methods(updates: UpdateApi) -> tuple[Method, ...]:
    """The methods of coworkd's own releases."""

    async def status(params: calls.NoParams, link: LinkPort) -> calls_update.UpdateStatus:
        return await updates.status()

    async def apply(params: calls_update.UpdateApply, link: LinkPort) -> calls_update.UpdateApplied:
        return await updates.apply(params)

    async def rollback(params: calls_update.UpdateRollback, link: LinkPort) -> calls_update.UpdateRolledBack:
        return await updates.rollback(params)

    return (
        Method(name="update.status", params=calls.NoParams, handler=status),
        Method(name="update.apply", params=calls_update.UpdateApply, handler=apply),
        Method(name="update.rollback", params=calls_update.UpdateRollback, handler=rollback),
    )
