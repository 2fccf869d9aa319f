"""A report of this machine for a host, with secrets planted where it looks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec import structs

from coworkd.config import Config
from coworkd.model.calls import Report
from coworkd.services import report as report_module
from coworkd.services.report import report, tell
from coworkd.services.report_part import Part
from coworkd.services.report_redact import Redactor, prose, tree
from coworkd.services.report_words import Words

SALT = b"salt of the host"


def config(directory: Path) -> Config:
    (directory / "payroll").mkdir()
    return structs.replace(Config(), sessions_dir=str(directory), token_file="/home/alice/hunter2")


def test_a_report_has_all_parts_and_no_secret(tmp_path: Path) -> None:
    parts = report(config(tmp_path), Report(salt=SALT), {"coworkd": os.getpid()}).parts
    assert {"homes.json", "versions.json", "config.json", "process-coworkd.json", "mounts.json"} <= {
        part.file for part in parts if part.json is not None
    }
    assert "audit.json" not in {part.file for part in parts}  # coworkd tells of its log itself
    for part in parts:
        assert (part.json is None) == (part.missing is not None)
        for secret in ("payroll", "alice", "hunter2"):
            assert secret not in f"{part.json}{part.missing}"


def test_pseudonyms_are_those_of_who_asks(tmp_path: Path) -> None:
    asked = Report(salt=SALT, names=("payroll",))
    told = {part.file: part.json for part in report(config(tmp_path), asked, {}).parts}
    expected = Redactor(Words(()), salt=SALT).pseudonym("payroll")
    assert json.loads(told["homes.json"] or "") == [expected]


def test_what_does_not_fit_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "REPORT_BYTES", 50)
    parts = report(config(tmp_path), Report(salt=SALT), {}).parts
    assert sum(len(part.json or "") for part in parts) <= 50
    assert [part for part in parts if part.missing == "the report is long enough without it"]


def test_a_part_is_told_with_how_much_was_left_out() -> None:
    redactor = Redactor(Words({"the", "disk"}))
    redactor.scrub("something before")
    told = tell(Part("x.json", "x", lambda: ["the disk of alice"], tree), redactor)
    assert (told.json, told.left_out) == ('["the disk [removed] [removed]"]', 2)
    assert tell(Part("x.json", "x", lambda: "the disk", prose), redactor).left_out == 0
