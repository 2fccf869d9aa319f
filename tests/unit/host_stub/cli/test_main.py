"""Exit statuses of `cowork-vm`, and what it says of wrong words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from host_stub.cli.main import main


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["up", "--help"], ["create", "-h"]])
def test_asking_for_help_is_no_fault(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["nothing"], ["up", "--nothing"], ["create"], ["grow"], ["grow", "huge"], ["create", "--cpus", "0"]]
)
def test_wrong_words_are_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "Error:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["up", "down", "status", "restart", "doctor", "logs", "rm", "console"])
def test_a_machine_that_is_not_there_is_1_with_a_remedy(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--bundle", str(tmp_path / "none")]) == 1
    err = capsys.readouterr().err
    assert "[no_bundle]" in err
    assert "what to do: make one: cowork-vm create" in err


def test_no_libraries_is_2_and_says_which_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    assert main(["up"]) == 2
    assert "coworkd[host]" in capsys.readouterr().err
