"""What dialling under trio adds: cancelling leaves nothing open. The endpoints themselves: test_dial."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio

from coworkd.client.aio_dial import dial
from coworkd.wire.endpoint import HybridEndpoint


def test_a_cancelled_handshake_closes_its_socket(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    before = len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        with trio.move_on_after(0.02) as scope:
            await dial(HybridEndpoint(path=str(tmp_path / "s"), port=1))
        assert scope.cancelled_caught

    trio.run(main)
    assert len(os.listdir("/proc/self/fd")) == before
    listener.close()


def test_a_wrong_use_is_not_swallowed(tmp_path: Path) -> None:
    async def main() -> None:
        await dial(object())  # type: ignore[arg-type]

    with pytest.raises(AttributeError):
        trio.run(main)
