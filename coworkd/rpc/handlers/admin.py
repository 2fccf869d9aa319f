"""`info`, `stats`, `doctor`, `logs`, `set_log_level`, `shutdown`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import HealthApi, ShutdownApi
from coworkd.rpc.methods import Method


def admin_methods(health: HealthApi, supervisor: ShutdownApi) -> tuple[Method, ...]:
    """The methods about coworkd itself."""

    async def info(params: calls.NoParams, link: LinkPort) -> calls.Info:
        return await health.info()

    async def stats(params: calls.NoParams, link: LinkPort) -> calls.Stats:
        return await health.stats()

    async def doctor(params: calls.NoParams, link: LinkPort) -> calls.DoctorAnswer:
        return await health.doctor()

    async def logs(params: calls.Logs, link: LinkPort) -> calls.LogsAnswer:
        return await health.logs(params)

    async def set_log_level(params: calls.SetLogLevel, link: LinkPort) -> calls.Empty:
        return await health.set_log_level(params)

    async def shutdown(params: calls.Mutating, link: LinkPort) -> calls.Empty:
        return await supervisor.shutdown()

    return (
        Method(name="info", params=calls.NoParams, handler=info),
        Method(name="stats", params=calls.NoParams, handler=stats),
        Method(name="doctor", params=calls.NoParams, handler=doctor),
        Method(name="logs", params=calls.Logs, handler=logs),
        Method(name="set_log_level", params=calls.SetLogLevel, handler=set_log_level),
        Method(name="shutdown", params=calls.Mutating, handler=shutdown),
    )
