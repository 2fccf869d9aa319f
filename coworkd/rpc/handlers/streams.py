"""`forward.open`, `stream.*` and `bridge.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import BridgesApi, ForwardsApi, StreamsApi
from coworkd.rpc.methods import Method


def stream_methods(streams: StreamsApi, forwards: ForwardsApi) -> tuple[Method, ...]:
    """The methods of streams, and what opens one."""

    return (
        Method(name="forward.open", params=calls.ForwardOpen, handler=forwards.open),
        Method(name="stream.write", params=calls.StreamWrite, handler=streams.write),
        Method(name="stream.close_write", params=calls.StreamCloseWrite, handler=streams.close_write),
        Method(name="stream.ack", params=calls.StreamAck, handler=streams.ack),
        Method(name="stream.close", params=calls.StreamClose, handler=streams.close),
    )


def bridge_methods(bridges: BridgesApi) -> tuple[Method, ...]:
    """The methods of bridges."""

    async def list_(params: calls.NoParams, link: LinkPort) -> calls.BridgeList:
        return await bridges.list()

    return (
        Method(name="bridge.open", params=calls.BridgeOpen, handler=bridges.open),
        Method(name="bridge.list", params=calls.NoParams, handler=list_),
        Method(name="bridge.close", params=calls.BridgeClose, handler=bridges.close),
    )
