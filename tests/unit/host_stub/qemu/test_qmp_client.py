from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from host_stub.qemu.qmp import QmpEvent
from host_stub.qemu.qmp_client import QmpClient
from host_stub.words import Trouble
from tests.unit.host_stub.qemu.test_qmp import GREETING


class FakeQemu:
    """QEMU's end of the link: reads commands, answers as it is told."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""

    async def read(self) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            self.buffer += await self.stream.receive_some()
        line, _, self.buffer = self.buffer.partition(b"\n")
        words: dict[str, Any] = json.loads(line)
        return words

    async def say(self, words: dict[str, Any]) -> None:
        await self.stream.send_all(json.dumps(words).encode() + b"\r\n")

    async def accept(self) -> None:
        await self.stream.send_all(GREETING)
        command = await self.read()
        assert command["execute"] == "qmp_capabilities"
        await self.say({"return": {}, "id": command["id"]})


def talk(
    ours: Callable[[QmpClient, list[QmpEvent]], Awaitable[None]], theirs: Callable[[FakeQemu], Awaitable[None]]
) -> None:
    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        events: list[QmpEvent] = []
        client = QmpClient(near, events.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            nursery.start_soon(theirs, FakeQemu(far))
            await ours(client, events)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_execute_gives_the_answer_and_events_are_told() -> None:
    async def ours(client: QmpClient, events: list[QmpEvent]) -> None:
        await client.greet()
        assert client.version == "7.2.22"
        assert await client.execute("query-status") == {"status": "running"}
        assert [event.name for event in events] == ["STOP"]

    async def theirs(qemu: FakeQemu) -> None:
        await qemu.accept()
        command = await qemu.read()
        await qemu.say({"event": "STOP"})
        await qemu.say({"return": {"status": "running"}, "id": command["id"]})

    talk(ours, theirs)


def test_refusal_is_told_in_qemus_words() -> None:
    async def ours(client: QmpClient, events: list[QmpEvent]) -> None:
        await client.greet()
        with pytest.raises(Trouble, match="refuses stop: not now") as caught:
            await client.execute("stop")
        assert caught.value.code == "qemu_refused"

    async def theirs(qemu: FakeQemu) -> None:
        await qemu.accept()
        command = await qemu.read()
        await qemu.say({"error": {"class": "GenericError", "desc": "not now"}, "id": command["id"]})

    talk(ours, theirs)


def test_silence_has_an_end_and_a_late_answer_is_nobodys() -> None:
    async def ours(client: QmpClient, events: list[QmpEvent]) -> None:
        await client.greet()
        with pytest.raises(Trouble) as caught:
            await client.execute("stop", timeout_s=5)
        assert caught.value.code == "qemu_silent"
        assert await client.execute("cont") == "second"

    async def theirs(qemu: FakeQemu) -> None:
        await qemu.accept()
        first = await qemu.read()
        await trio.sleep(6)
        await qemu.say({"return": "first", "id": first["id"]})
        second = await qemu.read()
        await qemu.say({"return": "second", "id": second["id"]})

    talk(ours, theirs)


def test_no_greeting_has_an_end() -> None:
    async def ours(client: QmpClient, events: list[QmpEvent]) -> None:
        with pytest.raises(Trouble) as caught:
            await client.greet(timeout_s=5)
        assert caught.value.code == "qemu_silent"

    async def theirs(qemu: FakeQemu) -> None:
        await trio.sleep_forever()

    talk(ours, theirs)


@pytest.mark.parametrize("last", [b"", b"rubbish\n"])
def test_who_waits_is_told_when_qemu_goes(last: bytes) -> None:
    async def ours(client: QmpClient, events: list[QmpEvent]) -> None:
        await client.greet()
        with pytest.raises(Trouble) as caught:
            await client.execute("stop")
        assert caught.value.code == "qemu_gone"
        with pytest.raises(Trouble) as caught:
            await client.execute("stop")
        assert caught.value.code == "qemu_gone"

    async def theirs(qemu: FakeQemu) -> None:
        await qemu.accept()
        await qemu.read()
        if last:
            await qemu.stream.send_all(last)
        else:
            await qemu.stream.aclose()

    talk(ours, theirs)
