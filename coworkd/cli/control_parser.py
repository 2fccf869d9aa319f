"""How every word of `coworkctl` is parsed: argparse, with the nearest right spelling of a wrong one. The words are `control_args`."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]

USAGE_STATUS = 2
BEFORE_COMMANDS = ("--to", "--token-file")
"""Options of coworkctl itself."""
RUN_FAILURE_STATUS = 125
_CHOICE = re.compile(r"invalid choice: '(?P<word>.*?)' \(choose from (?P<known>.*)\)")


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest right spelling of a wrong word, and a status of its own for `run` and its like."""

    failure_status = USAGE_STATUS
    unknown_hint = ""
    """What is said behind words that it does not know."""

    def __init__(self, **options: Any) -> None:
        # No abbreviations: an option that is added later must not change what a script means.
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """As argparse's, but nothing unknown is handed on: each command knows all of its own words, and says so with its own usage."""
        found, unknown = super().parse_known_args(*args, **options)
        if unknown:
            self.failure_status = getattr(found, "failure_status", self.failure_status)
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.failure_status, f"{self.prog}: {self._with_spelling(message)}\n")

    def _with_spelling(self, message: str) -> str:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        choice = _CHOICE.search(message)
        if unknown and unknown[1].partition("=")[0] in BEFORE_COMMANDS:
            return f"{message}; {unknown[1]} stands before the command"
        if unknown:
            message += self.unknown_hint
            near = spelled_like(unknown[1], self.options())
        elif choice:
            near = spelled_like(choice["word"], re.findall(r"[\w.-]+", choice["known"]))
        else:
            near = None
        return f"{message}; did you mean {near!r}?" if near else message

    def options(self) -> list[str]:
        """Every option this parser knows."""
        return [option for action in self._actions for option in action.option_strings]


def spelled_like(word: str, known: Sequence[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    near = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.6)
    return near[0] if near else None


def add_command(commands: Subparsers, name: str, handler: str | None, what: str, **options: Any) -> Any:
    """One command, or one verb of a command; without a `handler` it has verbs."""
    parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", **options)
    # SUPPRESS: a default here would overwrite a --json that stood before the command.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    if handler is not None:
        parser.set_defaults(handler=handler)
    return parser
