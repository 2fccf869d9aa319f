"""Which names in a folder the session has made itself. Pure.

Rules
- A name is its path from the folder down. It is the session's own from the moment the session makes it; any other is the user's.
- A name is own only while what stands there is what was recorded: a host that replaced the file has made it its own again.
- Renaming a user's name makes the new name the user's, whatever stood there. Renaming an own name keeps it own where nothing or an own name
  stood, and leaves a user's name the user's: saving by renaming is writing. An exchange leaves both own only where both were.
- What lies below a directory goes with it.
- **Saving by renaming away**: a user's name A that was renamed to B, where the session has made a new A, may go as B; A is the user's
  from then on. So the user has never fewer names than before. What was renamed is remembered for the last `ORIGINS` times, until the end.
- A name made by linking to what is not own (`borrowed`) is own only while the file has another name.
- At most `LIMIT` own names are remembered, of paths of at most `PATH_BYTES`; what is made beyond them counts as the user's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

LIMIT = 1_000_000
ORIGINS = 4096
PATH_BYTES = 4096
"""As long as a path that a command can name. Longer ones are reached step by step, and would be written down at full length."""

Path = tuple[bytes, ...]
"""Components from the folder down; `()` is the folder itself."""


class Identity(NamedTuple):
    """What stood at a name when it was recorded."""

    inode: int
    born: int
    """Nanoseconds since the epoch; 0 where the file system keeps no birth times."""
    borrowed: bool = False

    def is_same(self, inode: int, born: int) -> bool:
        return self.inode == inode and self.born == born


class _Place:
    __slots__ = ("below", "own")

    def __init__(self) -> None:
        self.own: Identity | None = None
        self.below: dict[bytes, _Place] = {}


class OwnNames:
    """The names of one folder."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._root = _Place()
        self._limit = limit
        self._origins: OrderedDict[Path, tuple[Path, Identity]] = OrderedDict()
        self.count = 0

    def get(self, path: Path) -> Identity | None:
        """What was recorded at `path`, if it is own."""
        place = self._find(path)
        return place.own if place is not None else None

    def is_known(self, path: Path) -> bool:
        """Whether something is recorded at `path` or below it."""
        return self._find(path) is not None

    def add(self, path: Path, identity: Identity) -> bool:
        """The session has made `path` anew; False where there are too many, and it counts as the user's."""
        self.remove(path)
        if self.count >= self._limit or not path or sum(map(len, path)) + len(path) > PATH_BYTES:
            return False
        place = self._root
        for name in path:
            place = place.below.setdefault(name, _Place())
        place.own = identity
        self.count += 1
        return True

    def remove(self, path: Path) -> bool:
        """`path` is gone, and all below it, or has become the user's; whether anything was known of it."""
        removed = self._take(path)
        if removed is None:
            return False
        self.count -= _count(removed)
        return True

    def disown(self, path: Path) -> None:
        """`path` itself is the user's from now on; what lies below stays as it is."""
        place = self._find(path)
        if place is not None and place.own is not None:
            place.own = None
            self.count -= 1
            self._prune(path)

    def move(self, source: Path, target: Path, own: Identity | None) -> None:
        """`source` was renamed to `target`, which is own as `own` says, or the user's."""
        moved = self._take(source)
        self.remove(target)
        if moved is None:
            moved = _Place()
        self.count += (own is not None) - (moved.own is not None)
        moved.own = own
        if moved.own is not None or moved.below:
            self._put(target, moved)

    def swap(self, one: Path, other: Path, own_one: Identity | None, own_other: Identity | None) -> None:
        """`one` and `other` were exchanged; what now stands at each is own as said, or the user's."""
        first, second = self._take(one) or _Place(), self._take(other) or _Place()
        for path, place, own in ((one, second, own_one), (other, first, own_other)):
            self.count += (own is not None) - (place.own is not None)
            place.own = own
            if own is not None or place.below:
                self._put(path, place)

    def moved_away(self, source: Path, target: Path, identity: Identity) -> None:
        """The user's name `source` was renamed to `target` by the session."""
        origin, _ = self._origins.pop(source, (source, identity))
        self._origins.pop(target, None)
        if origin != target:
            self._origins[target] = (origin, identity)
            if len(self._origins) > ORIGINS:
                self._origins.popitem(last=False)

    def origin(self, path: Path, inode: int, born: int) -> Path | None:
        """What the user's file at `path` was called before the session renamed it."""
        origin, identity = self._origins.get(path, ((), None))
        return origin if identity is not None and identity.is_same(inode, born) else None

    def forget_origin(self, path: Path) -> None:
        self._origins.pop(path, None)

    def __iter__(self) -> Iterator[tuple[Path, Identity]]:
        """Every own name whose path is not too long by now, each directory before what lies in it."""
        pending: list[tuple[Path, int, _Place]] = [((), 0, self._root)]
        while pending:
            path, length, place = pending.pop()
            if place.own is not None:
                yield path, place.own
            for name, below in place.below.items():
                if length + len(name) + 1 <= PATH_BYTES:
                    pending.append(((*path, name), length + len(name) + 1, below))

    def _find(self, path: Path) -> _Place | None:
        place: _Place | None = self._root
        for name in path:
            place = place.below.get(name)  # type: ignore[union-attr]  # checked below
            if place is None:
                return None
        return place

    def _take(self, path: Path) -> _Place | None:
        """Take the place out of the tree, with the empty ones above it. The count stays."""
        if not path:
            return None
        parent = self._find(path[:-1])
        taken = parent.below.pop(path[-1], None) if parent is not None else None
        if taken is not None:
            self._prune(path[:-1])
        return taken

    def _put(self, path: Path, place: _Place) -> None:
        parent = self._root
        for name in path[:-1]:
            parent = parent.below.setdefault(name, _Place())
        parent.below[path[-1]] = place

    def _prune(self, path: Path) -> None:
        """Take away the places of `path`, from its end, that hold nothing."""
        places = [self._root]
        for name in path:
            below = places[-1].below.get(name)
            if below is None:
                return
            places.append(below)
        for name, parent, place in zip(reversed(path), reversed(places[:-1]), reversed(places[1:]), strict=True):
            if place.own is not None or place.below:
                return
            del parent.below[name]


def _count(place: _Place) -> int:
    count, pending = 0, [place]
    while pending:
        each = pending.pop()
        count += each.own is not None
        pending.extend(each.below.values())
    return count
