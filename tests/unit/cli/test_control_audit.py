"""`coworkctl audit …`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from coworkd.auditlog import RotationLimits
from coworkd.cli.control import main
from coworkd.services.audit import AuditLog
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

RECORD = {"seq": 4, "at": 0.0, "kind": "process.start", "prev": "aa", "hash": "bb", "argv": ["a\x1b"]}


def test_tail_passes_its_options_on(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["audit.tail"] = lambda _: {"records": [RECORD]}
    assert ctl("audit", "tail", "-n", "5", "--session", "w", "--json") == 0
    assert guest.called("audit.tail") == [{"limit": 5, "session": "w"}]
    assert json.loads(capsys.readouterr().out) == RECORD


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_verify_has_its_status(
    ok: bool, status: int, ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"ok": ok, "records": 3, "first": 1, "last": 3, "head": "ff", "problem": None if ok else "record 2"}
    guest.answers["audit.verify"] = lambda _: answer
    assert ctl("audit", "verify") == status
    said = capsys.readouterr()
    assert ("whole" in said.out) is ok
    assert ("BROKEN: record 2" in said.err) is not ok


def test_query_passes_only_what_is_given(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["audit.query"] = lambda _: {"records": [RECORD], "truncated": True}
    assert ctl("audit", "query", "--kind", "egress.", "--refused", "--until", "9") == 0
    assert guest.called("audit.query") == [{"kinds": ["egress."], "refused": True, "until": 9.0}]
    said = capsys.readouterr()
    assert "process.start" in said.out
    assert "more records fit" in said.err


@pytest.fixture
def log_of_guest(tmp_path: Path, guest: FakeGuest) -> AuditLog:
    """A real log behind the guest's `audit.export`."""
    log = AuditLog.open(
        tmp_path / "log", boot_id="b", version="0", limits=RotationLimits(file_bytes=600, reserve_bytes=4096)
    )

    def export(params: dict[str, Any]) -> dict[str, Any]:
        from coworkd.model.calls_audit import AuditExport

        piece = trio.run(log.export, AuditExport(**params))
        return {**{name: getattr(piece, name) for name in piece.__struct_fields__}, "files": []}

    guest.answers["audit.export"] = export
    return log


def record(log: AuditLog, count: int) -> None:
    async def run() -> None:
        for number in range(count):
            await log.record("session.create", {"session": f"s{number}", "uid": 1001})

    trio.run(run)


def copied(directory: Path) -> Path:
    """The copy that an earlier export has made."""
    return Path(shutil.copytree(directory / "log", directory / "copy", ignore=lambda *_: ["reserve"]))


def test_export_makes_a_copy_that_verifies_and_is_continued(
    ctl: Ctl, log_of_guest: AuditLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(log_of_guest, 7)
    copy = copied(tmp_path)
    record(log_of_guest, 5)
    assert ctl("audit", "export", str(copy)) == 0
    assert log_of_guest.head[1] in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "log").glob("audit-*")
    }
    assert main(["audit", "verify", "--copy", str(copy)]) == 0


def test_a_changed_copy_is_found_out(
    ctl: Ctl, log_of_guest: AuditLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(log_of_guest, 3)
    copy = tmp_path / "copy"
    assert ctl("audit", "export", str(copy)) == 0
    first = min(copy.iterdir())
    first.write_bytes(first.read_bytes().replace(b"1001", b"1002", 1))
    assert main(["audit", "verify", "--copy", str(copy)]) == 1
    assert "BROKEN" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../planted", "/planted", "audit-1.jsonl", ""])
def test_a_guest_cannot_name_a_file_elsewhere(
    name: str, ctl: Ctl, guest: FakeGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    piece = {"file": name, "offset": 0, "data": b"x", "next_file": None, "next_offset": 1, "files": []}
    guest.answers["audit.export"] = lambda _: {**piece, "head_seq": 1, "head": "0"}
    assert ctl("audit", "export", str(tmp_path / "copy")) == 1
    assert "no such name" in capsys.readouterr().err
    assert list(tmp_path.rglob("planted")) == []
    assert list((tmp_path / "copy").iterdir()) == []


def test_a_piece_that_does_not_continue_the_copy_is_refused(
    ctl: Ctl, guest: FakeGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "audit-00000000000000000001.jsonl"
    piece = {"file": name, "offset": 7, "data": b"x", "next_file": None, "next_offset": 8, "files": []}
    guest.answers["audit.export"] = lambda _: {**piece, "head_seq": 1, "head": "0"}
    assert ctl("audit", "export", str(tmp_path / "copy")) == 1
    assert "another log" in capsys.readouterr().err
    assert (tmp_path / "copy" / name).read_bytes() == b""
