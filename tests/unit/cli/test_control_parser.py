"""What is said of a wrong word, whatever the words are."""

from __future__ import annotations

import pytest

from coworkd.cli.control_parser import Parser, add_command, spelled_like


def made() -> Parser:
    parser = Parser(prog="ctl")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    add_command(commands, "list", "room:list_all", "list them").add_argument("--limit")
    return parser


def test_spelled_like_looks_past_a_value() -> None:
    assert spelled_like("--timeuot=5", ["--timeout", "--tty"]) == "--timeout"
    assert spelled_like("zzz", ["--timeout"]) is None


def test_a_command_names_its_handler_and_takes_json_on_either_side() -> None:
    assert made().parse_args(["list"]).handler == "room:list_all"
    assert made().parse_args(["list", "--json"]).json is True


def test_a_wrong_option_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        made().parse_args(["list", "--limt", "3"])
    said = capsys.readouterr().err
    assert said.startswith("usage: ctl list")
    assert "did you mean '--limit'?" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--yes"], "ctl list: unrecognized arguments: --yes\n"),
        (["--limit", "list"], "ctl: unrecognized arguments: --limit\n"),
        (["list", "--to=unix:///x"], "--to=unix:///x stands before the command"),
    ],
)
def test_a_word_of_another_command_is_not_offered(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        made().parse_args(words)
    err = capsys.readouterr().err
    assert said in err
    assert "did you mean" not in err
