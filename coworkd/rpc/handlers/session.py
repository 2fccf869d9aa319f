"""`session.*`."""

from __future__ import annotations

from coworkd.model import calls, calls_limits
from coworkd.model.ports import LinkPort
from coworkd.model.session import RemovedSession
from coworkd.rpc.handlers.ports import SessionsApi
from coworkd.rpc.methods import Method


def session_methods(sessions: SessionsApi) -> tuple[Method, ...]:
    """The methods of sessions."""

    async def get(params: calls.SessionName, link: LinkPort) -> calls.SessionAnswer:
        return await sessions.get(params)

    async def list_(params: calls.NoParams, link: LinkPort) -> calls.SessionList:
        return await sessions.list()

    async def delete(params: calls.SessionDelete, link: LinkPort) -> RemovedSession:
        return await sessions.delete(params)

    async def set_policy(params: calls.SetPolicy, link: LinkPort) -> calls.PolicySet:
        return await sessions.set_policy(params)

    async def policy(params: calls.SessionName, link: LinkPort) -> calls.SessionPolicy:
        return await sessions.policy(params)

    async def set_limits(params: calls_limits.SetSessionLimits, link: LinkPort) -> calls_limits.LimitsSet:
        return await sessions.set_limits(params)

    async def pause(params: calls_limits.PauseSession, link: LinkPort) -> calls_limits.SessionPaused:
        return await sessions.pause(params)

    async def resume(params: calls_limits.PauseSession, link: LinkPort) -> calls_limits.SessionPaused:
        return await sessions.resume(params)

    return (
        Method(name="session.ensure", params=calls.SessionEnsure, handler=sessions.ensure),
        Method(name="session.get", params=calls.SessionName, handler=get),
        Method(name="session.list", params=calls.NoParams, handler=list_),
        Method(name="session.delete", params=calls.SessionDelete, handler=delete),
        Method(name="session.set_policy", params=calls.SetPolicy, handler=set_policy),
        Method(name="session.policy", params=calls.SessionName, handler=policy),
        Method(name="session.set_limits", params=calls_limits.SetSessionLimits, handler=set_limits),
        Method(name="session.pause", params=calls_limits.PauseSession, handler=pause),
        Method(name="session.resume", params=calls_limits.PauseSession, handler=resume),
    )
