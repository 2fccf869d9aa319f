"""What the user's files were called before the session renamed them: for whoever is asked whether one may go. Pure.

Rules
- Only renames count that this server has seen, of which the last `RENAMES` are kept: after that a file is called as it is.
- What lies below a directory that was renamed was below its old name.
- It decides nothing: what may go is the affair of `names`.
"""

from __future__ import annotations

from collections import OrderedDict

from coworkd.folderfs.names import Path

RENAMES = 4096
_HOPS = 16


class Renames:
    """New name → the one before."""

    def __init__(self) -> None:
        self._before: OrderedDict[Path, Path] = OrderedDict()

    def add(self, source: Path, target: Path) -> None:
        """The user's `source` was renamed to `target`."""
        before = self._before.pop(source, source)
        self._before.pop(target, None)
        if before != target:
            self._before[target] = before
            if len(self._before) > RENAMES:
                self._before.popitem(last=False)

    def swap(self, one: Path, other: Path) -> None:
        """They were exchanged."""
        at_one, at_other = self._before.pop(one, one), self._before.pop(other, other)
        for path, before in ((one, at_other), (other, at_one)):
            if before != path:
                self._before[path] = before

    def forget(self, path: Path) -> None:
        """Something else stands at `path` now, or nothing."""
        self._before.pop(path, None)

    def before(self, path: Path) -> Path | None:
        """What the file at `path` was called; None where it always was."""
        found = path
        for _ in range(_HOPS):
            exact = self._before.get(found)
            if exact is not None:
                return exact
            above = self._below_a_renamed_one(found)
            if above is None or above == path:  # directories that were exchanged
                break
            found = above
        return found if found != path else None

    def _below_a_renamed_one(self, path: Path) -> Path | None:
        for length in range(len(path) - 1, 0, -1):
            before = self._before.get(path[:length])
            if before is not None:
                return (*before, *path[length:])
        return None
