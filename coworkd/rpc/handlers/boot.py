"""`boot_time`, `sync_clock`, `shutdown`: the machine below coworkd. All are there before the rest is."""

from __future__ import annotations

from coworkd.model.calls import Empty, NoParams
from coworkd.model.calls_boot import BootTime, ClockSynced, Shutdown, SyncClock
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import BootApi, ClockApi, ShutdownApi
from coworkd.rpc.methods import Method


def boot_methods(boot: BootApi, clock: ClockApi, supervisor: ShutdownApi) -> tuple[Method, ...]:
    """The methods about the machine."""

    async def boot_time(params: NoParams, link: LinkPort) -> BootTime:
        return await boot.boot_time()

    async def sync_clock(params: SyncClock, link: LinkPort) -> ClockSynced:
        return await clock.sync(params)

    async def shutdown(params: Shutdown, link: LinkPort) -> Empty:
        return await supervisor.shutdown(params)

    return (
        Method(name="boot_time", params=NoParams, handler=boot_time),
        Method(name="sync_clock", params=SyncClock, handler=sync_clock),
        Method(name="shutdown", params=Shutdown, handler=shutdown),
    )
