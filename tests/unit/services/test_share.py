"""The host's share over a worker that answers what it is told to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.config import ShareConfig
from coworkd.model import share
from coworkd.model.errors import Unavailable
from coworkd.services.events import EventRing
from coworkd.services.share import LOOK_S, Share
from coworkd.system.virtio_devices import FILE_SYSTEM, NINEP


class House:
    """A machine, its worker, and what became of the share."""

    def __init__(self, *, kind: Any = "auto", devices: list[int] | None = None, wait_s: float = 3.0) -> None:
        self.devices = devices or []
        self.answers: list[share.Answer | Unavailable] = []
        self.asked: list[tuple[str, ...]] = []
        self.owned: list[str] = []
        self.reasons: list[str | None] = []
        self.events = EventRing()
        self.share = Share(
            ShareConfig(kind=kind, wait_s=wait_s),
            worker=self,
            events=self.events,
            on_state=self.reasons.append,
            types=lambda: self.devices,
        )

    async def mount(self, ask: share.MountShare, /) -> share.Answer:
        self.asked.append(ask.kinds)
        answer: share.Answer | Unavailable = share.ShareMounted(id=1, kind=ask.kinds[0], already=False)
        if self.answers:
            answer = self.answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    async def own(self, mount_point: str, /) -> None:
        self.owned.append(mount_point)

    @property
    def told(self) -> bytes:
        return b"".join(self.events.frames_from(self.events.first))


def run(main: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    async def around() -> None:
        async with trio.open_nursery() as nursery:
            await main(nursery)
            nursery.cancel_scope.cancel()

    trio.run(around, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_share_that_is_there_is_mounted_before_coming_up_goes_on() -> None:
    house = House(devices=[1, FILE_SYSTEM, NINEP])

    async def main(nursery: trio.Nursery) -> None:
        await nursery.start(house.share.serve)
        assert (house.share.state, house.share.kind) == ("mounted", "virtiofs")

    run(main)
    assert house.asked == [("virtiofs", "9p")]
    assert house.owned == ["/mnt/.virtiofs-root"]
    assert house.reasons[-1] is None


def test_a_machine_without_one_has_none_and_nothing_waits() -> None:
    house = House(devices=[1, 2])

    async def main(nursery: trio.Nursery) -> None:
        began = trio.current_time()
        await nursery.start(house.share.serve)
        assert trio.current_time() == began

    run(main)
    assert (house.share.state, house.asked, house.reasons[-1]) == ("absent", [], None)
    assert b"share.state" in house.told


def test_a_share_that_comes_later_is_adopted() -> None:
    house = House()

    async def main(nursery: trio.Nursery) -> None:
        await nursery.start(house.share.serve)
        await trio.sleep(10)
        house.devices = [NINEP]
        await trio.sleep(2 * LOOK_S)
        assert (house.share.state, house.share.kind) == ("mounted", "9p")

    run(main)
    assert house.asked == [("9p",)]


def test_one_that_is_wanted_by_name_is_waited_for_and_then_missing() -> None:
    house = House(kind="virtiofs", wait_s=3.0)

    async def main(nursery: trio.Nursery) -> None:
        began = trio.current_time()
        await nursery.start(house.share.serve)
        assert trio.current_time() - began == pytest.approx(3.0, abs=LOOK_S)

    run(main)
    assert "no device" in str(house.reasons[-1])


def test_one_that_cannot_be_mounted_is_told_and_tried_again() -> None:
    house = House(devices=[FILE_SYSTEM], wait_s=0.0)
    house.answers = [
        share.ShareAbsent(id=1, reason="virtiofs: tag <claudeshared> not found"),
        Unavailable("no launcher"),
    ]

    async def main(nursery: trio.Nursery) -> None:
        await nursery.start(house.share.serve)
        assert "not found" in str(house.reasons[-1])
        await trio.sleep(20)
        assert house.share.state == "mounted"

    run(main)
    assert house.reasons[-3:] == ["virtiofs: tag <claudeshared> not found", "no launcher", None]


def test_where_there_is_to_be_none_nothing_is_done() -> None:
    house = House(kind="none", devices=[FILE_SYSTEM])

    async def main(nursery: trio.Nursery) -> None:
        await nursery.start(house.share.serve)

    run(main)
    assert (house.share.state, house.asked, house.told) == ("none", [], b"")
