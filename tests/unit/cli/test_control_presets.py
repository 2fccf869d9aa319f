"""`coworkctl egress presets`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coworkd import config
from coworkd.cli import control_presets
from coworkd.cli.control import main
from coworkd.cli.control_presets import preset_lines
from coworkd.config import Config
from coworkd.netpolicy.presets import PresetTable, ResolvedPreset
from coworkd.services import presets
from coworkd.services.presets import ResolvedPresets, compose_file
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

TABLE = PresetTable(
    made_at=5.0, presets={"python": ResolvedPreset(hosts=("index.example",), said_by=("/etc/pip.conf",))}
)
RESOLVED = ResolvedPresets(
    table=TABLE,
    notes=("node: npm is not installed",),
)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "resolve_presets", lambda: RESOLVED)


@pytest.mark.usefixtures("resolved")
def test_writing_needs_no_coworkd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "presets.json"
    assert main(["egress", "presets", "--write", str(path)]) == 0
    assert json.loads(path.read_text())["presets"]["python"]["hosts"] == ["index.example"]
    said = capsys.readouterr()
    assert "python  index.example  (/etc/pip.conf)" in said.out
    assert "npm is not installed" in said.err
    assert main(["egress", "presets", "--write", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(path), "presets": ["python"]}


@pytest.mark.usefixtures("resolved")
def test_a_dash_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", "presets", "--write", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == 1


@pytest.mark.usefixtures("resolved")
def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", "presets", "--write", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err


ANSWER = {
    "presets": {
        "python": {
            "hosts": ["index.example"],
            "from": ["/etc/pip.conf"],
            "env": {"PIP_INDEX_URL": "https://i.example/"},
        },
        "node": {"hosts": [], "from": [], "env": {}},
    },
    "file": "/etc/coworkd/presets.json",
    "made_at": 5.0,
}


def test_showing_asks_coworkd(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["egress.presets"] = lambda _: ANSWER
    assert ctl("egress", "presets") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "node  allows nothing here",
        "python  index.example  (/etc/pip.conf)",
        "    PIP_INDEX_URL=https://i.example/",
    ]
    assert "/etc/coworkd/presets.json, made" in said[3]


def test_showing_tells_json(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["egress.presets"] = lambda _: ANSWER
    assert ctl("egress", "presets", "--json") == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


@pytest.mark.parametrize("there", [True, False])
def test_without_a_coworkd_the_file_that_one_would_use_is_shown(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "presets.json"
    if there:
        path.write_bytes(compose_file(TABLE))
    monkeypatch.setattr(control_presets, "named_uri", lambda _: None)
    monkeypatch.setattr(config, "load_config", lambda: Config(presets=str(path)) if there else Config())
    monkeypatch.setattr(config, "find_presets", lambda: None)
    assert main(["egress", "presets", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == (str(path) if there else None)
    assert said["presets"]["python"]["hosts"] == (["index.example"] if there else [])
    assert said["presets"]["rust"]["from"] == ["built in"]


def test_without_a_file_it_is_said_how_to_make_one(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["egress.presets"] = lambda _: {"presets": {}, "file": None, "made_at": None}
    assert ctl("egress", "presets") == 0
    assert "coworkctl egress presets --write" in capsys.readouterr().out


def test_a_line_has_no_control_characters() -> None:
    assert preset_lines("p", ("a\x1b.example",), ("f",), {"V": "\x1b"}) == "p  a\\x1b.example  (f)\n    V=\\x1b"
