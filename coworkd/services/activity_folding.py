"""Many changes → few lines, and nothing dropped in silence. Pure.

Rules
- Of one file and one process, within one window: like changes are one with a count; what was made and then written or truncated is one
  `create` of its last size.
- Where there are more lines than room, changes in one directory are one line `many` with their count, then those below one directory
  further up, and so on. What stands alone stays what it is.
- The order is that of each line's first change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

_OF_MAKING = ("write", "truncate", "attributes")


class Author(NamedTuple):
    """Where, and by whom."""

    folder: str
    process: str | None


class Line(Struct, kw_only=True):
    """One change, or several alike."""

    author: Author
    change: str
    """A `model.folder.ChangeKind`; `many`: several below `path`; `lost`: so many were not seen."""
    path: bytes
    to: bytes = b""
    size: int = -1
    count: int = 1
    at: float = 0.0
    """Of the first."""
    inferred: bool = False
    """Whether that process alone can have done it, though nobody saw that it did."""


class Window:
    """The lines of one session that are not told yet."""

    def __init__(self) -> None:
        self._lines: dict[tuple[Author, str, bytes, bytes], Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: Line) -> None:
        """One more change."""
        author, change, path = line.author, line.change, line.path
        known = self._lines.get((author, change, path, line.to))
        if known is None and change in _OF_MAKING:
            known = self._lines.get((author, "create", path, b""))
            if known is not None:
                known.size = line.size if change != "attributes" else known.size
                known.inferred = known.inferred and line.inferred
                return
        if known is None:
            self._lines[author, change, path, line.to] = line
            return
        known.count += line.count
        known.size = line.size
        known.inferred = known.inferred and line.inferred

    def take(self, room: int) -> list[Line]:
        """All of them as at most `room` lines, but for one of each author that there is at least; none is left."""
        lines = list(self._lines.values())
        self._lines.clear()
        return fold(lines, room)


def fold(lines: Sequence[Line], room: int) -> list[Line]:
    """As few lines as `room` wants; see the rules."""
    if len(lines) <= room:
        return list(lines)
    # The deeper, the more lines there are: the deepest that fits is searched for by halves.
    fits, too_deep = 0, max(line.path.count(b"/") for line in lines) + 1
    folded = _fold_at(lines, 0)
    while too_deep - fits > 1:
        depth = (fits + too_deep) // 2
        tried = _fold_at(lines, depth)
        if len(tried) <= room:
            fits, folded = depth, tried
        else:
            too_deep = depth
    return folded


def _fold_at(lines: Iterable[Line], depth: int) -> list[Line]:
    """One line for all that has the same author and the same first `depth` directories."""
    groups: dict[tuple[Author, bytes], Line] = {}
    for line in lines:
        place = _above(line.path, depth)
        key = line.author, place
        known = groups.get(key)
        if known is None:
            groups[key] = line
            continue
        lost = line.change == known.change == "lost"
        groups[key] = Line(
            author=line.author,
            change="lost" if lost else "many",
            path=place,
            count=known.count + line.count,
            at=known.at,
            inferred=known.inferred or line.inferred,
        )
    return list(groups.values())


def _above(path: bytes, depth: int) -> bytes:
    """The directory that `path` lies in, or the one above it of at most `depth` names."""
    return b"/".join(path.split(b"/")[:-1][:depth])
