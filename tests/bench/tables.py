"""Markdown tables, verdicts, and figures as a person reads them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from tests.bench.figures import Ratio

MIB = 1024 * 1024


class Verdict(Struct, frozen=True, kw_only=True):
    """One target and what was measured."""

    what: str
    measured: str
    target: str
    met: bool


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def verdict_table(verdicts: Iterable[Verdict]) -> str:
    rows = ((each.what, each.measured, each.target, "yes" if each.met else "**no**") for each in verdicts)
    return table(("", "measured", "target", "met"), rows)


def at_most(what: str, measured: float, target: float, shown: str, target_shown: str) -> Verdict:
    return Verdict(what=what, measured=shown, target=f"≤ {target_shown}", met=measured <= target)


def at_least(what: str, measured: Ratio, target: float) -> Verdict:
    return Verdict(what=what, measured=ratio(measured), target=f"≥ {target}", met=measured.median >= target)


def ratio(figures: Ratio) -> str:
    return f"{figures.median:.2f} ({figures.low:.2f} – {figures.high:.2f})"


def mib(count: float) -> str:
    return f"{count / MIB:.1f} MiB"
