"""`doctor`: what is wrong on this host, and then what the guest finds wrong with itself."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from coworkd.model.errors import CoworkError
from host_stub import guest_health
from host_stub.bundle import Bundle
from host_stub.checkup import Finding, check_host
from host_stub.cli.options import bundle_option, the_bundle
from host_stub.cli.telling import print_json, showing_progress
from host_stub.keeper_client import open_keeper
from host_stub.logs import escape

UNHEALTHY_STATUS = 1
_MARKS = {"ok": "ok      ", "degraded": "DEGRADED", "failed": "FAILED  "}


@click.command()
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(bundle: Path | None, as_json: bool) -> int:
    """Check this host, the machine's files, and the guest. Status 1 where a check failed."""
    there = the_bundle(bundle)
    with showing_progress() as progress:
        findings = list(check_host(there, progress))
    findings += check_guest(there)
    if as_json:
        print_json({"findings": findings})
    else:
        for finding in findings:
            print(finding_line(finding))
    return UNHEALTHY_STATUS if any(finding.state == "failed" for finding in findings) else 0


def check_guest(bundle: Bundle) -> list[Finding]:
    """What coworkd says of itself; nothing where no machine runs."""
    with open_keeper(bundle) as keeper:
        if keeper is None:
            return []
    from coworkd.client.sync import connect

    try:
        with connect(bundle.uri, client_name="cowork-vm doctor") as client:
            found = client.doctor().findings
    except CoworkError as error:
        return [
            Finding(
                check="guest",
                state="failed",
                detail=f"{error.message}; {trio.run(guest_health.look, bundle.health)}",
                remedy="see cowork-vm logs serial, and cowork-vm status",
            )
        ]
    return [Finding(check=f"guest: {f.check}", state=f.state, detail=f.detail, remedy=f.remedy) for f in found]


def finding_line(finding: Finding) -> str:
    """As coworkctl's doctor tells it."""
    line = f"{_MARKS[finding.state]}  {escape(finding.check, 200)}: {escape(finding.detail, 2000)}"
    if finding.remedy and finding.state != "ok":
        line += f"\n          mend it: {escape(finding.remedy, 2000)}"
    return line
