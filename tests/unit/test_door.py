"""The door: what is answered before the rest is there, and what becomes of what happened until then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
import trio
import trio.testing

from coworkd import door as door_module
from coworkd.door import KEPT_RECORDS, Door, EarlyAudit, EarlyTable
from coworkd.model.calls import NoParams
from coworkd.model.errors import AlreadyExists, DiskFailed, Unavailable
from coworkd.rpc.handlers.link import link_methods
from coworkd.rpc.methods import Method, MethodTable
from tests.unit.rpc.fake_health import FakeHealth
from tests.unit.rpc.fakes import HELLO, FakeAudit


async def answer(params: Any, link: Any) -> dict[str, int]:
    return {"n": 1}


LATE = Method(name="late", params=NoParams, handler=answer)
EARLY = link_methods(FakeHealth(), token=None)


def run(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))


def test_what_is_not_there_yet_is_unavailable_with_the_stage() -> None:
    table = EarlyTable(EARLY, lambda: "storage")
    assert table.find("ping").name == "ping"
    with pytest.raises(Unavailable, match="coming up: storage") as caught:
        table.find("session.ensure")
    assert caught.value.details["stage"] == "storage"


async def call(link: trio.SocketStream, unpacker: msgpack.Unpacker, number: int, method: str, params: Any) -> Any:
    await link.send_all(msgpack.packb([0, number, method, [params]]))
    while True:
        for message in unpacker:
            if message[:2] == [1, number]:
                return message[2], message[3]
        unpacker.feed(await link.receive_some(65536))


def test_a_link_that_came_early_is_served_when_all_is_there(tmp_path: Path) -> None:
    path, audit = str(tmp_path / "s"), FakeAudit()

    async def main() -> None:
        door = Door((f"unix://{path}",), doing=lambda: "storage", degrade=lambda part, reason: None)
        door.put_methods(EARLY)
        async with trio.open_nursery() as nursery:
            await door.open(nursery, patient=True)
            link, unpacker = await trio.open_unix_socket(path), msgpack.Unpacker()
            await call(link, unpacker, 1, "hello", HELLO)
            error, _ = await call(link, unpacker, 2, "late", {})
            assert error["code"] == "UNAVAILABLE"
            assert audit.records == []
            await door.enter(MethodTable((*EARLY, LATE)), audit)
            assert await call(link, unpacker, 3, "late", {}) == (None, {"n": 1})
            assert [kind for kind, _ in audit.records] == ["link.open"]
            await link.aclose()
            await door.shut(1.0)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_an_endpoint_that_is_late_is_degraded_until_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "later" / "s"
    said: list[tuple[str, bool]] = []

    async def main() -> None:
        uri = f"unix://{path}"
        door = Door((uri,), doing=lambda: "", degrade=lambda part, reason: said.append((part, reason is not None)))
        async with trio.open_nursery() as nursery:
            await door.open(nursery, patient=True)
            assert said == [(f"endpoint {uri}", True)]
            path.parent.mkdir()
            await trio.sleep(door_module.RETRY_S * 1.5)
            assert said[-1] == (f"endpoint {uri}", False)
            await (await trio.open_unix_socket(str(path))).aclose()
            nursery.cancel_scope.cancel()

    run(main)


def test_an_impatient_door_fails_the_start(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("no socket")

    async def main() -> None:
        door = Door((f"unix://{tmp_path}/s",), doing=lambda: "", degrade=lambda part, reason: None)
        async with trio.open_nursery() as nursery:
            with pytest.raises(AlreadyExists):
                await door.open(nursery, patient=False)
            nursery.cancel_scope.cancel()

    run(main)


def test_what_came_before_the_audit_log_is_in_it_in_order() -> None:
    async def main() -> None:
        early, audit = EarlyAudit(), FakeAudit()
        for number in range(KEPT_RECORDS + 1):
            await early.record("link.open", {"link": str(number)})
        await early.hand_over(audit)
        await early.record("link.close", {"link": "0"})
        assert [fields["link"] for _, fields in audit.records] == [*map(str, range(KEPT_RECORDS)), "0"]

    run(main)


def test_a_log_that_takes_nothing_keeps_nobody_from_coming_up(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        async def record(self, kind: str, fields: Any, /) -> None:
            raise DiskFailed("full")

    async def main() -> None:
        early = EarlyAudit()
        await early.record("link.open", {"link": "1"})
        await early.hand_over(Full())

    run(main)
    assert "link.open could not be audited: full" in caplog.text
