"""`logs`, `set_log_level`. They are there before the rest is."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import LogsApi
from coworkd.rpc.methods import Method


def log_methods(log: LogsApi) -> tuple[Method, ...]:
    """The methods of the log of the day."""

    async def logs(params: calls.Logs, link: LinkPort) -> calls.LogsAnswer:
        return log.logs(params)

    async def set_log_level(params: calls.SetLogLevel, link: LinkPort) -> calls.Empty:
        return log.set_log_level(params)

    return (
        Method(name="logs", params=calls.Logs, handler=logs),
        Method(name="set_log_level", params=calls.SetLogLevel, handler=set_log_level),
    )
