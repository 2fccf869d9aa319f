"""A delete that waits for a person, as that person is asked: in words, and by a key.

What a session has in its file names is shown, never obeyed: see `control_tables.shown`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from coworkd.cli.control_tables import shown
from coworkd.model.calls import Approval

SHOWN_PATHS = 12
Answer = Literal["once", "session", "deny"]
_KEYS: dict[str, Answer] = {"y": "once", "s": "session", "n": "deny", "\x03": "deny", "\x04": "deny", "\x1b": "deny"}
KEYS = "[y] yes, these   [s] yes to all deletes in this folder   [n] no"


class Question(NamedTuple):
    """One approval, however it was learned of."""

    approval: str
    session: str
    process: str | None
    folder: str
    paths: Sequence[str | bytes]
    files: int
    more: bool
    trees: Sequence[str | bytes]
    command: Sequence[str | bytes]
    revision: int
    expires_at: float


def question_of(params: Mapping[str, Any]) -> Question:
    """Of the event `approval.requested`."""
    return Question(
        approval=str(params["approval"]),
        session=str(params["session"]),
        process=params.get("process"),
        folder=str(params["folder"]),
        paths=params.get("paths") or (),
        files=int(params.get("count") or 0),
        more=bool(params.get("more")),
        trees=params.get("trees") or (),
        command=params.get("command") or (),
        revision=int(params.get("revision") or 1),
        expires_at=float(params.get("expires_at") or 0.0),
    )


def question_of_approval(approval: Approval) -> Question:
    """Of one that `approval.list` tells."""
    return question_of({name: getattr(approval, name) for name in approval.__struct_fields__})


def lines_of(question: Question) -> list[str]:
    """What is asked, a line each; without the keys."""
    count = f"{question.files}{' or more' if question.more else ''}"
    files = "file" if count == "1" else "files"
    lines = [f"session {shown(question.session)} wants to delete {count} {files} in folder {shown(question.folder)}:"]
    lines += [f"    {shown(path)}" for path in question.paths[:SHOWN_PATHS]]
    left = question.files - min(len(question.paths), SHOWN_PATHS)
    if left > 0:
        lines.append(f"    and {left} more")
    if question.more:
        trees = ", ".join(shown(tree) or "." for tree in question.trees[:SHOWN_PATHS])
        lines.append(f"    with all that lies below {trees or 'them'}")
    if question.command:
        lines.append(f"  by: {' '.join(shown(word) for word in question.command)[:500]}")
    return lines


def parse_key(typed: str) -> Answer | None:
    """What was typed, as an answer; the first key that is one counts."""
    return next((_KEYS[key] for key in typed.lower() if key in _KEYS), None)


def describe_end(answer: str) -> str:
    """Why a question that is open here is closed."""
    said = {
        "once": "allowed elsewhere",
        "session": "allowed elsewhere, with all deletes in this folder",
        "deny": "refused elsewhere",
        "timeout": "nobody answered in time, and it is refused",
        "withdrawn": "the command does not wait any more",
        "ended": "its folder was unmounted",
        "unrecorded": "it cannot be recorded, and is refused",
    }
    return said.get(answer, shown(answer))
