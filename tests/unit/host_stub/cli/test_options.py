"""What all commands share."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from host_stub.cli.options import PassOnCommand, Size, bundle_option, bundle_path


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        (["--", "uname", "-a"], ["--", "uname", "-a"]),
        (["--session", "work", "--", "sh", "-c", "a -- b", "--", "x"], ["--session", "work", "--", "sh", "-c", "a -- b", "--", "x"]),
        (["--bundle", "/vm", "-t", "work"], ["-t", "work"]),
        (["--bundle=/vm", "--", "-x"], ["--", "-x"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)  # fmt: skip
def test_another_programs_words_are_left_alone(words: list[str], passed: list[str]) -> None:
    seen: list[list[str]] = []

    @click.command(cls=PassOnCommand)
    @bundle_option
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(bundle: Path | None, words: tuple[str, ...]) -> None:
        seen.append(list(words))

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert seen == [passed]


def test_a_size_is_bytes_or_a_usage_error() -> None:
    assert Size().convert("2M", None, None) == 2 << 20
    assert Size().convert(7, None, None) == 7
    with pytest.raises(click.BadParameter, match="is no size"):
        Size().convert("much", None, None)


def test_a_named_bundle_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COWORK_BUNDLE", "/vm")
    assert (bundle_path(None), bundle_path(Path("/other"))) == (Path("/vm"), Path("/other"))
