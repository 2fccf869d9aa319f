"""A machine below a temporary directory, whose programs answer what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coworkd.system.tool_settings import Machine


class Programs:
    """Answers by the whole command line, else by its program; `asked` keeps what was asked, with the variables."""

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[tuple[str, ...], dict[str, str]]] = []

    def __call__(self, argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
        self.asked.append((tuple(argv), dict(environ)))
        return self.answers.get(" ".join(argv), self.answers.get(argv[0]))


def machine(
    root: Path,
    *,
    environ: Mapping[str, str] | None = None,
    programs: Programs | None = None,
    home: str | None = "/root",
) -> Machine:
    """No program is there unless a test says so."""
    return Machine(environ=environ or {}, home=home, ask=programs or Programs(), root=str(root))


def put(root: Path, path: str, text: str) -> None:
    """A file of that machine."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
