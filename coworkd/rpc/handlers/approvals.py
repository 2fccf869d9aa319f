"""`approval.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import ApprovalsApi
from coworkd.rpc.methods import Method


def approval_methods(approvals: ApprovalsApi) -> tuple[Method, ...]:
    """The methods of approvals."""

    async def list_(params: calls.ApprovalList, link: LinkPort) -> calls.Approvals:
        return await approvals.list(params)

    return (
        Method(name="approval.list", params=calls.ApprovalList, handler=list_),
        Method(name="approval.answer", params=calls.ApprovalAnswer, handler=approvals.answer),
    )
