"""A guest that has streams: what it answers, and what it got on each."""

from __future__ import annotations

import itertools
from typing import Any

from tests.unit.client.conftest import FakeGuest, Fault


class StreamGuest:
    """Answers `forward.open` and `stream.*` of a `FakeGuest`; takes at most `room` bytes a write."""

    def __init__(self, guest: FakeGuest) -> None:
        self.guest = guest
        self.room = 1 << 30
        self.got: dict[str, bytearray] = {}
        self.ended: set[str] = set()
        self._numbers = itertools.count(1)
        guest.answers["forward.open"] = self._open
        guest.answers["stream.write"] = self._write
        guest.answers["stream.close_write"] = self._close_write
        guest.answers["stream.ack"] = lambda _: {}
        guest.answers["stream.close"] = lambda _: {}

    def send(self, offset: int, data: bytes, stream: str = "s1", **more: Any) -> None:
        self.guest.notify("stream.data", stream=stream, offset=offset, data=data, **more)

    def _open(self, params: dict[str, Any]) -> dict[str, str]:
        if params["port"] == 1:
            raise Fault("FAILED_PRECONDITION", "nobody listens", stage="connect")
        name = f"s{next(self._numbers)}"
        self.got[name] = bytearray()
        return {"stream": name}

    def _write(self, params: dict[str, Any]) -> dict[str, int]:
        got = self.got[params["stream"]]
        if params["stream"] in self.ended:
            raise Fault("FAILED_PRECONDITION", "closed")
        assert params["offset"] == len(got)
        got += params["data"][: self.room]
        return {"offset": len(got)}

    def _close_write(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["offset"] == len(self.got[params["stream"]])
        self.ended.add(params["stream"])
        return {}
