"""coworkctl's commands against the machine's guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.cli import control
from host_stub.bundle import Bundle
from host_stub.cli.main import main


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["exec", "--", "uname", "-a"], ["run", "--", "uname", "-a"]),
        (["exec", "--session", "work", "-t", "--", "sh"], ["run", "--session", "work", "-t", "--", "sh"]),
        (["shell", "work"], ["shell", "work"]),
        (["ctl", "ps", "--json"], ["ps", "--json"]),
        (["tool", "list"], ["tool", "list"]),
    ],
)
def test_words_are_coworkctls_and_its_status_ours(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, words: list[str], given: list[str]
) -> None:
    seen: list[list[str]] = []

    def coworkctl(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    monkeypatch.setattr(control, "main", coworkctl)
    monkeypatch.setenv("COWORK_BUNDLE", str(bundle.path))
    monkeypatch.setattr("host_stub.cli.guests._require_keeper", lambda _: None)
    assert main(words) == 7
    assert seen == [["--to", bundle.uri, *given]]


def test_without_a_machine_it_is_125(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "--bundle", str(bundle.path), "--", "true"]) == 125
    assert "[not_running]" in capsys.readouterr().err
    assert main(["exec", "--bundle", str(bundle.path / "none"), "--", "true"]) == 125


def test_wrong_words_are_what_coworkctl_says(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_stub.cli.guests._require_keeper", lambda _: None)
    assert main(["ctl", "--bundle", str(bundle.path), "nothing"]) == 2
    assert main(["exec", "--bundle", str(bundle.path)]) == 125


@pytest.mark.parametrize("words", [["exec", "--help"], ["shell", "-h"], ["ctl", "ps", "--help"], ["tool", "--help"]])
def test_help_takes_no_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main([words[0], "--bundle", str(tmp_path / "none"), *words[1:]]) == 0
    assert "usage: coworkctl" in capsys.readouterr().out


def test_help_of_the_command_in_the_guest_takes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "--bundle", str(tmp_path / "none"), "--", "ls", "--help"]) == 125
    assert "[no_bundle]" in capsys.readouterr().err
