"""`audit.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import AuditApi
from coworkd.rpc.methods import Method


def audit_methods(audit: AuditApi) -> tuple[Method, ...]:
    """The methods that read the audit log."""

    async def tail(params: calls.AuditTail, link: LinkPort) -> calls.AuditRecords:
        return await audit.tail(params)

    async def verify(params: calls.NoParams, link: LinkPort) -> calls.AuditVerified:
        return await audit.verify()

    return (
        Method(name="audit.tail", params=calls.AuditTail, handler=tail),
        Method(name="audit.verify", params=calls.NoParams, handler=verify),
    )
