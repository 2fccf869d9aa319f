"""Which part of a guest hangs: asked of its health port, which coworkd answers by a thread of its own (docs/health.md).

    the loop turns       coworkd lives; what hangs is between us, or a single link
    the loop hangs       coworkd is stuck; its watchdog ends it, and commands live on
    nobody listens       there is no coworkd, or none yet
    nothing is said      the guest itself stands still

What a guest says is believed in nothing but these: it is bounded, and read as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from coworkd.client.aio_dial import dial
from coworkd.model.errors import UNDECODABLE, Unavailable
from coworkd.wire.endpoint import Endpoint

LOOK_S = 3.0
_ANSWER_BYTES = 16 * 1024
_BROKE_OFF = "its health port breaks off: coworkd has just ended, or the guest is going down"
_REQUEST = b"GET /live HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n"


async def look(endpoint: Endpoint, *, within_s: float = LOOK_S) -> str:
    """One sentence. Never raises, and takes no longer than that."""
    said: Mapping[str, Any] | None = None
    with trio.move_on_after(within_s):
        try:
            said = await _ask(endpoint)
        except Unavailable as error:
            return f"nobody answers at its health port: {error.message}"
        except (OSError, trio.BrokenResourceError):
            return _BROKE_OFF
    return "nothing is said at its health port either: the guest itself stands still" if said is None else explain(said)


def explain(said: Mapping[str, Any]) -> str:
    """What an answer of `/live` means."""
    turned_ago_s = said.get("turned_ago_s")
    if not isinstance(turned_ago_s, float | int) or isinstance(turned_ago_s, bool) or not math.isfinite(turned_ago_s):
        return "its health port says nothing of use"
    if said.get("live") is True:
        return f"coworkd lives, its loop turned {turned_ago_s:.1f} s ago: what hangs is the link"
    return f"coworkd hangs: its loop has not turned for {turned_ago_s:.0f} s, and the guest lives"


async def _ask(endpoint: Endpoint) -> Mapping[str, Any]:
    """An empty answer where it is none. Raises `Unavailable`, `OSError`, `trio.BrokenResourceError`."""
    stream, found = await dial(endpoint)
    async with stream:
        await stream.send_all(_REQUEST)
        while len(found) < _ANSWER_BYTES and (data := await stream.receive_some(_ANSWER_BYTES)):
            found += data
    if not found:
        raise ConnectionResetError
    try:
        said = msgspec.json.decode(found.partition(b"\r\n\r\n")[2])
    except UNDECODABLE:
        return {}
    return said if isinstance(said, dict) else {}
