"""The host's link to a real coworkd: who it is, its clock, and its log from its first line on."""

from __future__ import annotations

from pathlib import Path

import trio

from host_stub.guest_link import GuestLink
from host_stub.logs import BoundedLog
from host_stub.words import GuestNews
from tests.vm.guest_lab import Guest


def test_a_guest_is_met_heard_and_its_log_kept(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "coworkd.log"
    log = BoundedLog(path)
    news: list[GuestNews] = []

    async def main() -> None:
        link = GuestLink(guest.uri, log=log)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(link.run, news.append)
                while not (
                    {"connected", "ready"} <= {one.kind for one in news} and path.exists() and path.stat().st_size
                ):
                    await trio.sleep(0.05)
                while "clock.synced" not in {one.message for one in news}:
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()

    trio.run(main)
    log.close()
    connected = next(one for one in news if one.kind == "connected")
    assert connected.details["stages"]
    synced = next(one for one in news if one.message == "clock.synced")
    assert abs(synced.details["offset_s"]) < 5, "the clone's clock was set when it was made"
    lines = path.read_text().splitlines()
    assert any("[coworkd] " in line or "[boot]" in line or "] ready" in line for line in lines), lines[:5]
