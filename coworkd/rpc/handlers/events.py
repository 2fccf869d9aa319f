"""`events.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import EventsApi
from coworkd.rpc.methods import Method


def event_methods(events: EventsApi) -> tuple[Method, ...]:
    """The methods of published events."""

    async def subscribe(params: calls.Subscribe, link: LinkPort) -> calls.Subscribed:
        return events.subscribe(params, link)

    async def unsubscribe(params: calls.NoParams, link: LinkPort) -> calls.Empty:
        return events.unsubscribe(link)

    return (
        Method(name="events.subscribe", params=calls.Subscribe, handler=subscribe),
        Method(name="events.unsubscribe", params=calls.NoParams, handler=unsubscribe),
    )
