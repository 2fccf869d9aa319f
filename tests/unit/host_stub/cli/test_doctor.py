"""`doctor` from the command line; its checks are tried in test_checkup."""

from __future__ import annotations

import json

import pytest

from host_stub.bundle import Bundle
from host_stub.checkup import Finding
from host_stub.cli.doctor import check_guest, finding_line
from host_stub.cli.main import main


def test_a_finding_is_a_line_and_a_remedy() -> None:
    bad = Finding(check="share", state="failed", detail="gone\x1b", remedy="make it")
    assert finding_line(bad) == "FAILED    share: gone\\x1b\n          mend it: make it"
    good = Finding(check="share", state="ok", detail="there", remedy="none needed")
    assert finding_line(good) == "ok        share: there"


def test_a_failed_check_is_status_1(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle.path / "vmlinuz").unlink()
    assert main(["doctor", "--bundle", str(bundle.path), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"image": "failed"}.items() <= {each["check"]: each["state"] for each in findings}.items()


def test_no_machine_has_no_guest_to_ask(bundle: Bundle) -> None:
    assert check_guest(bundle) == []
