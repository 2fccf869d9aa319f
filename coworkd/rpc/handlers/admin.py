"""`info`, `stats`, `doctor`, `report`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import HealthApi
from coworkd.rpc.methods import Method


def admin_methods(health: HealthApi) -> tuple[Method, ...]:
    """The methods about coworkd itself."""

    async def info(params: calls.NoParams, link: LinkPort) -> calls.Info:
        return await health.info()

    async def stats(params: calls.NoParams, link: LinkPort) -> calls.Stats:
        return await health.stats()

    async def doctor(params: calls.NoParams, link: LinkPort) -> calls.DoctorAnswer:
        return await health.doctor()

    async def report(params: calls.Report, link: LinkPort) -> calls.Reported:
        return await health.report(params)

    return (
        Method(name="info", params=calls.NoParams, handler=info),
        Method(name="stats", params=calls.NoParams, handler=stats),
        Method(name="doctor", params=calls.NoParams, handler=doctor),
        Method(name="report", params=calls.Report, handler=report),
    )
