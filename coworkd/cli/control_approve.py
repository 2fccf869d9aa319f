"""`coworkctl approve`: deletes that wait for a person, listed, answered, or asked about here as they come."""

from __future__ import annotations

import argparse
import os
import sys
import time

from coworkd.cli.control_asking import Asker, TypedKeys
from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_question import KEYS, Answer, lines_of, parse_key, question_of_approval
from coworkd.cli.control_tables import print_table, shown, span
from coworkd.client import Client
from coworkd.model.calls import Approval
from coworkd.model.errors import InvalidParams, NotFound

STDIN = 0


def approve(args: argparse.Namespace) -> int:
    """See the module."""
    if args.watch and args.approval is not None:
        raise InvalidParams("--watch asks about all as they come: name no approval", key="watch")
    with open_client(args) as client:
        if args.watch:
            return _watch(client, args.session)
        if args.approval is None:
            return _list(client, args.session, as_json=args.json)
        found = _find(client, args.approval)
        revision = None if found is None else found.revision
        answer: Answer = args.answer or _ask(found, args.approval)
        answered = client.approval_answer(approval=args.approval, answer=answer, revision=revision)
    if args.json:
        print(dump(answered))
    else:
        print(f"{'refused' if answer == 'deny' else 'allowed'}: {answered.count} deletes waited")
    return 0


def _list(client: Client, session: str | None, *, as_json: bool) -> int:
    answer = client.approval_list(session=session)
    if as_json:
        print(dump(answer))
        return 0
    rows = [
        (
            each.approval,
            each.session,
            each.process or "-",
            each.folder,
            f"{each.count}{'+' if each.more else ''}",
            span(max(0.0, each.expires_at - time.time())),
            each.paths[0] if each.paths else "-",
        )
        for each in answer.approvals
    ]
    print_table(("APPROVAL", "SESSION", "PROCESS", "FOLDER", "FILES", "LEFT", "FIRST"), rows)
    return 0


def _find(client: Client, approval: str) -> Approval | None:
    return next((each for each in client.approval_list().approvals if each.approval == approval), None)


def _ask(approval: Approval | None, name: str) -> Answer:
    """Ask at this terminal. Raises `InvalidParams` where there is none, `NotFound` for one that is not open."""
    if approval is None:
        raise NotFound(f"there is no approval {name!r}; list those that are open", approval=name)
    if not os.isatty(STDIN):
        raise InvalidParams("answer it with once, session or deny: there is no terminal to ask at", key="answer")
    for line in (*lines_of(question_of_approval(approval)), f"  {KEYS}"):
        print(line, file=sys.stderr)
    while True:
        typed = sys.stdin.readline()
        answer = parse_key(typed) if typed else "deny"
        if answer is not None:
            return answer


def _watch(client: Client, session: str | None) -> int:
    if not os.isatty(STDIN):
        raise InvalidParams("--watch asks at a terminal, and standard input is none", key="watch")
    which = f" of session {shown(session)}" if session is not None else ""
    print(f"coworkctl: waiting for deletes{which} that ask; interrupt to end", file=sys.stderr)
    asker = Asker(
        client,
        TypedKeys(STDIN),
        wanted=lambda question: session in (None, question.session),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    asker.run()
    return 0
