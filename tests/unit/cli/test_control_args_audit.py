"""The words of `coworkctl audit`."""

from __future__ import annotations

import pytest

from coworkd.cli.control_args import parse


def test_query_takes_kinds_times_and_refusals() -> None:
    args = parse(["audit", "query", "--kind", "egress.", "--kind", "process.start", "--refused", "--since", "12.5"])
    assert (args.kind, args.refused, args.since, args.until, args.limit) == (
        ["egress.", "process.start"],
        True,
        12.5,
        None,
        100,
    )


def test_export_wants_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["audit", "export", "copy"]).directory == "copy"
    with pytest.raises(SystemExit):
        parse(["audit", "export"])
    assert "DIR" in capsys.readouterr().err


def test_verify_takes_a_copy() -> None:
    assert parse(["audit", "verify"]).copy is None
    assert parse(["audit", "verify", "--copy", "there"]).copy == "there"
