"""`coworkctl ca …`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from coworkd.cli.control_ca import MAX_PEM_BYTES
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

INSTALLED = {"name": "acme", "subject": "CN=Acme\x1b[2J Root", "sha256": "ab" * 32, "not_after": 4e9}


def test_install_sends_the_file_and_shows_what_is_trusted_now(
    ctl: Ctl, guest: FakeGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "acme.pem").write_text("PEM\n")
    guest.answers["ca.install"] = lambda _: {"installed": [INSTALLED]}
    assert ctl("ca", "install", "acme", str(tmp_path / "acme.pem")) == 0
    assert guest.called("ca.install") == [{"name": "acme", "pem": "PEM\n"}]
    said = capsys.readouterr().out
    assert "acme" in said
    assert "abababababababab " in said
    assert "\x1b" not in said


def test_install_reads_standard_input(ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("é PEM".encode())))
    guest.answers["ca.install"] = lambda _: {"installed": [INSTALLED]}
    assert ctl("ca", "install", "acme", "-") == 0
    assert guest.called("ca.install") == [{"name": "acme", "pem": "é PEM"}]


def test_a_file_that_is_der_is_sent_and_judged_there(ctl: Ctl, guest: FakeGuest, tmp_path: Path) -> None:
    (tmp_path / "acme.der").write_bytes(b"\x30\x82\xff\x00")
    guest.answers["ca.install"] = lambda _: {"installed": []}
    assert ctl("ca", "install", "acme", str(tmp_path / "acme.der")) == 0
    assert len(guest.called("ca.install")) == 1


def test_a_whole_bundle_is_refused_before_it_breaks_the_link(
    ctl: Ctl, guest: FakeGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all.pem").write_bytes(b"x" * (MAX_PEM_BYTES + 1))
    assert ctl("ca", "install", "all", str(tmp_path / "all.pem")) == 1
    assert "not a whole bundle" in capsys.readouterr().err
    assert guest.called("ca.install") == []


def test_a_file_that_is_missing_is_named(ctl: Ctl, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("ca", "install", "acme", "/nonexistent/acme.pem") == 1
    assert "/nonexistent/acme.pem: No such file" in capsys.readouterr().err


def test_list_is_a_table(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["ca.list"] = lambda _: {"installed": [INSTALLED]}
    assert ctl("ca", "list") == 0
    assert capsys.readouterr().out.startswith("NAME")


def test_list_is_json_where_that_is_asked_for(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["ca.list"] = lambda _: {"installed": [INSTALLED]}
    assert ctl("ca", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"installed": [INSTALLED]}


def test_rm_names_what_goes(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["ca.remove"] = lambda _: {}
    assert ctl("ca", "rm", "acme") == 0
    assert guest.called("ca.remove") == [{"name": "acme"}]
    assert "acme" in capsys.readouterr().out
