"""`coworkctl doctor`, `info`, `stats` and `call`: the other end itself."""

from __future__ import annotations

import argparse
import sys

from coworkd.cli.control_json import dump, load
from coworkd.cli.control_link import open_client
from coworkd.cli.control_records import print_map
from coworkd.cli.control_tables import shown
from coworkd.model.calls import Finding
from coworkd.wire.convert import compose_answer
from coworkd.wire.prometheus import State, compose_metrics, part_names

UNHEALTHY_STATUS = 1
_MARKS = {"ok": "ok      ", "degraded": "DEGRADED", "failed": "FAILED  "}


def doctor(args: argparse.Namespace) -> int:
    """Status 1 where a check failed; what is only degraded leaves it 0."""
    if args.bundle is not None:
        from coworkd.cli.control_bundle import bundle

        return bundle(args)
    with open_client(args) as client:
        findings = client.doctor().findings
    if args.json:
        print(dump({"findings": findings}))
    else:
        for finding in findings:
            print(finding_line(finding))
    return UNHEALTHY_STATUS if any(finding.state == "failed" for finding in findings) else 0


def finding_line(finding: Finding) -> str:
    """One line, and a second one with the remedy where there is one."""
    line = f"{_MARKS[finding.state]}  {shown(finding.check)}: {shown(finding.detail)}"
    return f"{line}\n          mend it: {shown(finding.remedy)}" if finding.remedy and finding.state != "ok" else line


def info(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer, degraded = client.info(), client.hello.degraded
    if args.json:
        print(dump({**compose_answer(answer), "degraded": degraded}))
        return 0
    print_map(compose_answer(answer))
    for part, why in degraded.items():
        print(f"degraded: {shown(part)}: {shown(why)}")
    return 0


def stats(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer, hello = client.stats(), client.hello
    if args.prometheus:
        state = State(version=hello.version, ready=True, degraded=part_names(hello.degraded))
        print(compose_metrics(answer, state), end="")
    elif args.json:
        print(dump(answer))
    else:
        print_map(compose_answer(answer))
    return 0


def call(args: argparse.Namespace) -> int:
    """The answer as JSON, whether --json was given or not."""
    params = load(sys.stdin.read() if args.params == "-" else args.params)
    with open_client(args) as client:
        print(dump(client.call(args.method, params), indent=2))
    return 0
