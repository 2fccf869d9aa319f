"""One request, from its map to its map: parse, replay, call the handler, translate what it raises.

Not here: who may call, how many at once, sending. All of that is the link's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coworkd.model.calls import Mutating, Params
from coworkd.model.ports import LinkPort
from coworkd.rpc.faults import as_fault
from coworkd.rpc.methods import Method
from coworkd.rpc.replay import Replay
from coworkd.wire.convert import compose_answer, parse_params

LOOKING = frozenset(
    {"hello", "ping", "info", "stats", "doctor", "logs", "boot_time", "sync_clock"}
    | {"events.subscribe", "events.unsubscribe", "process.list", "session.list", "egress.status", "storage.usage"}
)
"""What a host asks that only looks after the guest: it keeps no guest from counting as idle."""


class Dispatcher:
    """Calls methods for links; shared by all of a server."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.requests_total = 0
        self.work_total = 0
        """Those of them that wanted something of the guest: not `LOOKING`."""

    def asked_again(self, method: str, request_id: str) -> bool:
        """See `Replay.asked_again`."""
        return self._replay.asked_again(method, request_id)

    async def call(self, method: Method, params: Mapping[str, Any], link: LinkPort) -> Any:
        """Return the composed answer. Raises only `CoworkError` (and trio's `Cancelled`)."""
        self.requests_total += 1
        self.work_total += method.name not in LOOKING
        try:
            parsed = parse_params(params, method.params)
            if isinstance(parsed, Mutating) and parsed.request_id is not None:
                return await self._replay.call(method.name, parsed, lambda: _handle(method, parsed, link))
            return compose_answer(await method.handler(parsed, link))
        except Exception as error:
            raise as_fault(error, method=method.name, link=link.name) from error


async def _handle(method: Method, params: Params, link: LinkPort) -> Any:
    """For who keeps the answer, and the fault as it travels."""
    try:
        return compose_answer(await method.handler(params, link))
    except Exception as error:
        raise as_fault(error, method=method.name, link=link.name) from error
