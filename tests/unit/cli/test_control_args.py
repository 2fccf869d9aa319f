"""The command line of coworkctl: what it means, and what is said of wrong words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coworkd.cli.control_args import parse
from coworkd.cli.control_parser import RUN_FAILURE_STATUS, USAGE_STATUS


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


def test_all_behind_the_first_dashes_is_the_commands() -> None:
    args = parse(["run", "--session", "work", "--", "git", "log", "--json", "--", "a"])
    assert args.argv == ["git", "log", "--json", "--", "a"]
    assert args.session == "work"
    assert args.json is False


def test_a_plain_command_needs_no_dashes() -> None:
    assert parse(["run", "echo", "hi"]).argv == ["echo", "hi"]


@pytest.mark.parametrize("words", [["--json", "ps"], ["ps", "--json"]])
def test_json_may_stand_before_and_behind_the_command(words: list[str]) -> None:
    assert parse(words).json is True


def test_options_of_run_are_taken() -> None:
    words = [
        "run",
        "--folder",
        "/a:b:ro",
        "--folder",
        "/c:d:rwd",
        "-e",
        "A=1",
        "--timeout",
        "1.5",
        "-t",
        "-i",
        "--",
        "x",
    ]
    args = parse(words)
    assert (args.folder, args.env, args.timeout) == (["/a:b:ro", "/c:d:rwd"], ["A=1"], 1.5)
    assert args.tty
    assert args.stdin


def test_a_wrong_command_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = refused(["sesion", "list"], capsys)
    assert status == USAGE_STATUS
    assert "did you mean 'session'?" in said


def test_a_wrong_verb_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = refused(["session", "ensur", "x"], capsys)
    assert status == USAGE_STATUS
    assert "did you mean 'ensure'?" in said


def test_a_wrong_option_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = refused(["run", "--sesion", "x", "--", "true"], capsys)
    assert status == RUN_FAILURE_STATUS
    assert "did you mean '--session'?" in said


def test_an_option_is_never_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["run", "--prof", "x", "--", "true"], capsys)[0] == RUN_FAILURE_STATUS


def test_run_without_a_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = refused(["run", "--session", "x"], capsys)
    assert status == RUN_FAILURE_STATUS
    assert "-- ARGV" in said


def test_options_of_the_command_without_dashes_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "behind --" in refused(["run", "ls", "-la"], capsys)[1]


def test_policy_brings_its_own_commands() -> None:
    args = parse(["policy", "show", "--profile", "strict"])
    assert args.profile == "strict"
    assert callable(args.handler)


@pytest.mark.parametrize(
    "command", ["run", "shell", "ps", "attach", "kill", "session", "egress", "policy", "audit", "events", "call"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([command, "--help"])
    assert caught.value.code == 0
    assert f"coworkctl {command}" in capsys.readouterr().out


def test_parsing_imports_neither_the_client_nor_the_policies() -> None:
    code = (
        "import sys; from coworkd.cli.control_args import parse; parse(['ps'])\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('trio', 'msgpack', 'msgspec')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
