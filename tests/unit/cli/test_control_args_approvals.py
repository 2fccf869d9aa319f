"""`cli.control_args_approvals`: the words of `approve` and `watch`."""

from __future__ import annotations

import pytest

from coworkd.cli.control_args import parse


def test_approve_takes_an_approval_and_an_answer() -> None:
    args = parse(["approve", "a1", "session"])
    assert (args.approval, args.answer, args.watch) == ("a1", "session", False)
    assert parse(["approve", "--watch", "--session", "w"]).session == "w"


def test_another_answer_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["approve", "a1", "dney"])
    assert "did you mean 'deny'?" in capsys.readouterr().err


def test_watch_takes_a_session() -> None:
    args = parse(["watch", "work", "--after", "3"])
    assert (args.session, args.after) == ("work", 3)
