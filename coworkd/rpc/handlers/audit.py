"""`audit.*`."""

from __future__ import annotations

from coworkd.model import calls, calls_audit
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import AuditApi
from coworkd.rpc.methods import Method


def audit_methods(audit: AuditApi) -> tuple[Method, ...]:
    """The methods that read the audit log."""

    async def tail(params: calls.AuditTail, link: LinkPort) -> calls.AuditRecords:
        return await audit.tail(params)

    async def query(params: calls_audit.AuditQuery, link: LinkPort) -> calls.AuditRecords:
        return await audit.query(params)

    async def export(params: calls_audit.AuditExport, link: LinkPort) -> calls_audit.AuditPiece:
        return await audit.export(params)

    async def verify(params: calls.NoParams, link: LinkPort) -> calls.AuditVerified:
        return await audit.verify()

    return (
        Method(name="audit.tail", params=calls.AuditTail, handler=tail),
        Method(name="audit.query", params=calls_audit.AuditQuery, handler=query),
        Method(name="audit.export", params=calls_audit.AuditExport, handler=export),
        Method(name="audit.verify", params=calls.NoParams, handler=verify),
    )
