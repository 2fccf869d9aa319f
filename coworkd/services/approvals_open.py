"""One question that is open: the deletes that wait, what else the commands are about to delete, and what of it was told.

Rules
- The list only grows while it is open, but for deletes that are withdrawn. What was added since it was told last has no revision yet,
  and no answer is about it.
- What is shown of it is bounded, in number and in bytes; the count is true.

It asks nobody and answers nothing: `approvals` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import trio

from coworkd.model.calls_folders import Approval
from coworkd.model.folder import Listed
from coworkd.model.names import OsBytes
from coworkd.system.process_command import Identity

SHOWN_PATHS = 1000
SHOWN_BYTES = 256 * 1024
EVENT_BYTES = 24 * 1024
REPLACED_PATHS = 1000
COMMAND_BYTES = 2048


class AskingFolder(Protocol):
    """A guarded folder, whose file system asks."""

    @property
    def session(self) -> str: ...

    @property
    def folder(self) -> str: ...

    @property
    def is_there(self) -> bool:
        """Until it is unmounted, or its file system has ended."""

    def decide(self, ask: int, *, allow: bool) -> None:
        """Answer what waits. Never fails: one that does not wait any more is passed over."""

    async def list_below(self, path: bytes, limit: int) -> Listed:
        """Raises `ConnectionResetError`."""


class Ask(NamedTuple):
    """One delete that waits."""

    number: int
    path: bytes
    identity: Identity | None
    """Who waits; None where it is not known."""
    was: bytes = b""
    """What the session has renamed it from."""


class Listing(NamedTuple):
    """What one command is about to delete. `trees` are directories it deletes with all below; `more`: not all below is in `paths`."""

    command: tuple[bytes, ...]
    paths: tuple[bytes, ...] = ()
    trees: tuple[bytes, ...] = ()
    more: bool = False


class OpenApproval:
    """`id` names it; `key` is session, process and folder."""

    def __init__(
        self, id: str, asking: AskingFolder, process: str | None, *, asked_at: float, expires_at: float
    ) -> None:
        self.id = id
        self.asking = asking
        self.session = asking.session
        self.folder = asking.folder
        self.process = process
        self.asked_at = asked_at
        self.expires_at = expires_at
        self.revision = 0
        """0 until it was told."""
        self.answer: str | None = None
        """Once somebody has answered."""
        self.is_over = False
        """Its time went by, or it could not be told, while somebody answered."""
        self.replaced: set[bytes] = set()
        """Where the session has put something else since it was begun; `b""` where those are too many."""
        self.grown = trio.Event()
        self.scope = trio.CancelScope()
        """Of the task that attends to it."""
        self._waiting: dict[int, Ask] = {}
        self._listings: dict[Identity, Listing] = {}
        self._told: dict[int | Identity, int] = {}
        """What was told, by number or command: in which revision first."""

    @property
    def key(self) -> tuple[AskingFolder, str | None]:
        return self.asking, self.process

    def add(self, ask: Ask) -> None:
        self._waiting[ask.number] = ask
        self.grown.set()

    def withdraw(self, number: int) -> None:
        self._waiting.pop(number, None)

    def replace(self, path: bytes) -> None:
        """Something else stands at `path` now than what a person may have seen there."""
        if len(self.replaced) < REPLACED_PATHS:
            self.replaced.add(path)
        else:
            self.replaced = {b""}

    def add_listing(self, identity: Identity, listing: Listing) -> None:
        self._listings[identity] = listing

    @property
    def unseen(self) -> tuple[Identity, ...]:
        """Who waits, and was not looked at yet."""
        who = (ask.identity for ask in self._waiting.values())
        return tuple(dict.fromkeys(each for each in who if each is not None and each not in self._listings))

    @property
    def untold(self) -> tuple[int | Identity, ...]:
        """What came since it was told."""
        keys: list[int | Identity] = [*self._waiting, *self._listings]
        return tuple(key for key in keys if key not in self._told)

    def tell(self, keys: Iterable[int | Identity]) -> None:
        """Those are told now, as a new revision."""
        self.revision += 1
        for key in keys:
            self._told.setdefault(key, self.revision)

    def waiting(self, revision: int | None = None) -> tuple[Ask, ...]:
        """Those that wait; with `revision` only those that were told by then."""
        return tuple(ask for number, ask in self._waiting.items() if self._is_told(number, revision))

    def listings(self, revision: int | None = None) -> dict[Identity, Listing]:
        return {who: listing for who, listing in self._listings.items() if self._is_told(who, revision)}

    def _is_told(self, key: int | Identity, revision: int | None) -> bool:
        return revision is None or self._told.get(key, revision + 1) <= revision

    def paths(self) -> tuple[bytes, ...]:
        """Those that wait before those that are listed, each once. One that the session has renamed is there by its old name as well:
        a person knows it by that."""
        listed = (path for listing in self._listings.values() for path in listing.paths)
        waiting = (name for ask in self._waiting.values() for name in (ask.path, ask.was) if name)
        return tuple(dict.fromkeys((*waiting, *listed)))

    def describe(self, limit_bytes: int = SHOWN_BYTES) -> Approval:
        """What a person is shown."""
        paths = self.paths()
        listings = self._listings.values()
        command = next((listing.command for listing in listings if listing.command), ())
        trees = dict.fromkeys(tree for listing in listings for tree in listing.trees)
        return Approval(
            approval=self.id,
            session=self.session,
            process=self.process,
            folder=self.folder,
            action="delete",
            paths=_fitting(paths, SHOWN_PATHS, limit_bytes),
            count=len(paths),
            waiting=len(self._waiting),
            asked_at=self.asked_at,
            expires_at=self.expires_at,
            revision=self.revision,
            more=any(listing.more for listing in listings),
            trees=_fitting(trees, SHOWN_PATHS, limit_bytes // 4),
            command=_fitting(command, SHOWN_PATHS, COMMAND_BYTES),
        )


def _fitting(words: Iterable[bytes], limit: int, limit_bytes: int) -> tuple[OsBytes, ...]:
    """The first of `words`, as far as they fit."""
    taken: list[OsBytes] = []
    for word in words:
        limit_bytes -= len(word) + 8
        if len(taken) >= limit or limit_bytes < 0:
            break
        taken.append(OsBytes(word))
    return tuple(taken)
