"""Deletes of what the user has, which wait for somebody to say yes or no.

Rules
- At most `WAITING` wait; one more is refused. One whose time is over is refused too, and withdrawn.
- Who is interrupted waits on, as on any other file system, unless he is to end; the kernel tells of the first signal alone, so he is
  looked at again every `LOOK_S`.
- An ask holds a descriptor of the directory and knows the inode it was about: what is deleted in the end is that, or nothing.
- The kernel holds the directory's lock meanwhile: what is in its cache can still be reached, new names in this directory wait as well.

It deletes nothing: `removal` does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Literal

from coworkd.folderfs.nodes import Node
from coworkd.folderfs.told import Told
from coworkd.model.folder import Asked, Withdrawn
from coworkd.system.pending_signals import wants_to_end

WAITING = 1000
LOOK_S = 0.25


class Ask:
    """One delete that waits. Its directory descriptor is the ask's."""

    __slots__ = (
        "born",
        "directory",
        "found",
        "is_directory",
        "name",
        "number",
        "parent",
        "path",
        "pid",
        "since",
        "unique",
        "was",
    )

    def __init__(
        self,
        number: int,
        unique: int,
        *,
        parent: Node,
        directory: int,
        name: bytes,
        path: bytes,
        was: bytes,
        found: os.stat_result,
        born: int,
        is_directory: bool,
        pid: int,
        since: float,
    ) -> None:
        self.number = number
        self.unique = unique
        self.parent = parent
        self.directory = directory
        self.name = name
        self.path = path
        self.was = was
        self.found = found
        self.born = born
        self.is_directory = is_directory
        self.pid = pid
        self.since = since

    def is_of(self, found: os.stat_result, born: int) -> bool:
        """Whether that is what was asked about. An inode's number is used again at once; where its file system keeps no birth times,
        what was changed since is asked about anew."""
        if not os.path.samestat(found, self.found) or born != self.born:
            return False
        return bool(born) or found.st_ctime_ns == self.found.st_ctime_ns

    def message(self, now: float) -> Asked:
        """`now` as `since`: told again, it has waited for as long as it has, whatever became of the clock."""
        action: Literal["delete", "rmdir"] = "rmdir" if self.is_directory else "delete"
        return Asked(
            ask=self.number,
            action=action,
            path=self.path,
            was=self.was,
            pid=self.pid,
            at=time.time() - (now - self.since),
        )


class Asks:
    """All that wait, by the order they came in."""

    def __init__(
        self,
        told: Told,
        timeout_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        wants_to_end: Callable[[int], bool] = wants_to_end,
    ) -> None:
        self.timeout_s = timeout_s
        self._wants_to_end = wants_to_end
        self._interrupted: dict[int, Ask] = {}
        self._looked = 0.0
        self._told = told
        self._monotonic = monotonic
        self._waiting: dict[int, Ask] = {}
        self._by_request: dict[int, Ask] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        unique: int,
        *,
        parent: Node,
        directory: int,
        name: bytes,
        path: bytes,
        was: bytes = b"",
        found: os.stat_result,
        born: int,
        is_directory: bool,
        pid: int,
    ) -> bool:
        """Ask; False where too many wait, or nobody has listened for so long that nothing more can be said. Raises `OSError`."""
        if len(self._waiting) >= WAITING:
            return False
        ask = Ask(
            self._next,
            unique,
            parent=parent,
            directory=os.dup(directory),
            name=name,
            path=path,
            was=was,
            found=found,
            born=born,
            is_directory=is_directory,
            pid=pid,
            since=self._monotonic(),
        )
        if not self._told.say(ask.message(ask.since)):
            os.close(ask.directory)
            return False
        self._next += 1
        self._waiting[ask.number] = self._by_request[unique] = ask
        return True

    def take(self, number: int) -> Ask | None:
        """The ask of that number, the caller's from now on, who closes its descriptor; None where it does not wait any more."""
        ask = self._waiting.pop(number, None)
        if ask is not None:
            del self._by_request[ask.unique]
            self._interrupted.pop(number, None)
        return ask

    def interrupt(self, unique: int) -> None:
        """The request was interrupted, which may be one that waits."""
        ask = self._by_request.get(unique)
        if ask is not None:
            self._interrupted[ask.number] = ask
            self._looked = self._monotonic() - LOOK_S

    def given_up(self) -> list[Ask]:
        """Those that are interrupted by the end of who asks."""
        if not self._interrupted or self._monotonic() < self._looked + LOOK_S:
            return []
        self._looked = self._monotonic()
        return [ask for ask in self._interrupted.values() if not ask.pid or self._wants_to_end(ask.pid)]

    def drop(self, ask: Ask) -> None:
        """It is not asked any more; whoever listens is told."""
        self.take(ask.number)
        os.close(ask.directory)
        self._told.say(Withdrawn(ask=ask.number))

    def overdue(self) -> list[Ask]:
        """Those whose time is over."""
        limit = self._monotonic() - self.timeout_s
        return [ask for ask in self._waiting.values() if ask.since <= limit]

    def due_in_s(self) -> float | None:
        """When the next one's time is over, or somebody is to be looked at."""
        first = next(iter(self._waiting.values()), None)
        if first is None:
            return None
        due = first.since + self.timeout_s
        if self._interrupted:
            due = min(due, self._looked + LOOK_S)
        return max(0.0, due - self._monotonic())

    def tell_again(self) -> None:
        """Somebody new listens, perhaps."""
        for ask in self._waiting.values():
            self._told.say(ask.message(self._monotonic()))

    def __iter__(self) -> Iterator[Ask]:
        return iter(list(self._waiting.values()))

    def close(self) -> None:
        for ask in self:
            self.take(ask.number)
            os.close(ask.directory)
