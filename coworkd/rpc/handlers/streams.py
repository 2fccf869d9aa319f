"""`forward.open`, `stream.*` and `bridge.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import BridgesApi, ForwardsApi, StreamsApi
from coworkd.rpc.methods import Method


def stream_methods(streams: StreamsApi, forwards: ForwardsApi) -> tuple[Method, ...]:
    """The methods of streams, and what opens one."""

    async def open_forward(params: calls.ForwardOpen, link: LinkPort) -> calls.StreamOpened:
        return await forwards.open(params, link)

    async def write(params: calls.StreamWrite, link: LinkPort) -> calls.StreamOffset:
        return await streams.write(params, link)

    async def close_write(params: calls.StreamCloseWrite, link: LinkPort) -> calls.Empty:
        return await streams.close_write(params, link)

    async def ack(params: calls.StreamAck, link: LinkPort) -> calls.Empty:
        return await streams.ack(params, link)

    async def close(params: calls.StreamClose, link: LinkPort) -> calls.Empty:
        return await streams.close(params, link)

    return (
        Method(name="forward.open", params=calls.ForwardOpen, handler=open_forward),
        Method(name="stream.write", params=calls.StreamWrite, handler=write),
        Method(name="stream.close_write", params=calls.StreamCloseWrite, handler=close_write),
        Method(name="stream.ack", params=calls.StreamAck, handler=ack),
        Method(name="stream.close", params=calls.StreamClose, handler=close),
    )


def bridge_methods(bridges: BridgesApi) -> tuple[Method, ...]:
    """The methods of bridges."""

    async def open_bridge(params: calls.BridgeOpen, link: LinkPort) -> calls.BridgeOpened:
        return await bridges.open(params, link)

    async def list_(params: calls.NoParams, link: LinkPort) -> calls.BridgeList:
        return await bridges.list()

    async def close(params: calls.BridgeClose, link: LinkPort) -> calls.Empty:
        return await bridges.close(params, link)

    return (
        Method(name="bridge.open", params=calls.BridgeOpen, handler=open_bridge),
        Method(name="bridge.list", params=calls.NoParams, handler=list_),
        Method(name="bridge.close", params=calls.BridgeClose, handler=close),
    )
