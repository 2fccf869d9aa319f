"""`tool.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.calls_tools import ToolInstall, ToolInstalled, ToolList, ToolRemove, ToolRemoved
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import ToolsApi
from coworkd.rpc.methods import Method


def tool_methods(tools: ToolsApi) -> tuple[Method, ...]:
    """The methods of tools."""

    async def install(params: ToolInstall, link: LinkPort) -> ToolInstalled:
        return await tools.install(params)

    async def list_(params: calls.NoParams, link: LinkPort) -> ToolList:
        return await tools.list()

    async def remove(params: ToolRemove, link: LinkPort) -> ToolRemoved:
        return await tools.remove(params)

    return (
        Method(name="tool.install", params=ToolInstall, handler=install),
        Method(name="tool.list", params=calls.NoParams, handler=list_),
        Method(name="tool.remove", params=ToolRemove, handler=remove),
    )
