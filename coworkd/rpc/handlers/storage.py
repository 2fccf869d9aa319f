"""`storage.*`."""

from __future__ import annotations

from coworkd.model import calls, calls_storage
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import StorageApi
from coworkd.rpc.methods import Method


def storage_methods(storage: StorageApi) -> tuple[Method, ...]:
    """The methods of the session disk."""

    async def usage(params: calls.NoParams, link: LinkPort) -> calls_storage.StorageUsage:
        return await storage.usage()

    async def trim(params: calls_storage.StorageTrim, link: LinkPort) -> calls_storage.StorageTrimmed:
        return await storage.trim(params)

    async def grow(params: calls_storage.StorageGrow, link: LinkPort) -> calls_storage.StorageGrown:
        return await storage.grow(params)

    return (
        Method(name="storage.usage", params=calls.NoParams, handler=usage),
        Method(name="storage.trim", params=calls_storage.StorageTrim, handler=trim),
        Method(name="storage.grow", params=calls_storage.StorageGrow, handler=grow),
    )
