"""`ca.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import CaApi
from coworkd.rpc.methods import Method


def trust_methods(trust: CaApi) -> tuple[Method, ...]:
    """The methods of certificates."""

    async def install(params: calls.CaInstall, link: LinkPort) -> calls.CaInstalled:
        return await trust.install(params)

    async def list_(params: calls.NoParams, link: LinkPort) -> calls.CaInstalled:
        return await trust.list()

    async def remove(params: calls.CaName, link: LinkPort) -> calls.Empty:
        return await trust.remove(params)

    return (
        Method(name="ca.install", params=calls.CaInstall, handler=install),
        Method(name="ca.list", params=calls.NoParams, handler=list_),
        Method(name="ca.remove", params=calls.CaName, handler=remove),
    )
