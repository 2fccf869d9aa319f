"""`coworkctl doctor folder` and `doctor denied`: why a granted folder is refused, and which wall a safe action met.

Nothing is changed, and nothing is asked that a host could not ask itself: what is told is put together from the guest's own calls. Status 1
where something failed, as for `doctor` itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from coworkd.cli.control_daemon import UNHEALTHY_STATUS, finding_line
from coworkd.cli.control_doctor_denied import KINDS, explain_denials
from coworkd.cli.control_doctor_folder import explain_grant, explain_look, explain_questions, find_folder
from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import shown
from coworkd.client.sync import Client
from coworkd.model.calls import Finding
from coworkd.model.errors import CoworkError

RECORDS = 1000
"""Looked through at most."""


def folder(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        folders = client.folder_list(session=args.session).folders
        found, inside = find_folder(folders, args.session, args.path)
        findings = list(explain_grant(folders, args.session, args.path, found))
        if found is not None:
            if found.state == "mounted":
                findings.append(explain_look(inside, _look(client, args.session, inside)))
            records = _records(client, ("approval.answer",), args.session)
            findings += explain_questions(records, found.name, args.session)
    return _tell(findings, as_json=args.json)


def denied(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        records = _records(client, KINDS, args.session)
    findings = list(explain_denials(records, limit=args.limit))
    _tell(findings, as_json=args.json)
    return 0


def _look(client: Client, session: str, path: str) -> CoworkError | None:
    try:
        client.call("file.stat", {"session": session, "path": path})
    except CoworkError as error:
        return error
    return None


def _records(client: Client, kinds: Sequence[str], session: str | None) -> Sequence[dict[str, Any]]:
    asked: dict[str, Any] = {"kinds": list(kinds), "limit": RECORDS}
    if session is not None:
        asked["session"] = session
    records: Sequence[dict[str, Any]] = client.call("audit.query", asked)["records"]
    return records


def _tell(findings: Sequence[Finding], *, as_json: bool) -> int:
    if as_json:
        print(dump({"findings": findings}))
    else:
        for finding in findings:
            print(finding_line(finding))
            if finding.state == "ok" and finding.remedy:
                print(f"          to change it: {shown(finding.remedy)}")
    return UNHEALTHY_STATUS if any(finding.state == "failed" for finding in findings) else 0
