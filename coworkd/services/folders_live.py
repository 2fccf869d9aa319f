"""What is known of the folders of open sessions: how each stands, or why it does not. Of one launcher: another has mounted nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from coworkd.model.errors import CoworkError
from coworkd.model.folder import MountedAs
from coworkd.model.session import FolderGrant


class Standing(NamedTuple):
    """One that is mounted."""

    grant: FolderGrant
    mounted_as: MountedAs
    degraded: tuple[str, ...]
    asks: bool
    """Of a guarded one in mode `rw`: whether a delete asks a person."""

    def becomes(self, grant: FolderGrant) -> bool:
        """Whether it can be what `grant` says without being mounted anew: a guarded folder takes another rule as it stands."""
        if self.grant.source != grant.source:
            return False
        ruled = self.mounted_as == "guarded" and {self.grant.mode, grant.mode} <= {"rw", "rwd"}
        return ruled or self.grant.mode == grant.mode


class Failing(NamedTuple):
    """One that is not, and why."""

    grant: FolderGrant
    error: CoworkError


class LiveFolders:
    """By session and name, in the order of mounting."""

    def __init__(self, generation: Callable[[], int]) -> None:
        self._generation = generation
        self._sessions: dict[str, tuple[int, dict[str, Standing | Failing]]] = {}

    def of(self, session: str) -> dict[str, Standing | Failing]:
        """Those of one session, to be changed."""
        generation, folders = self._sessions.get(session, (-1, {}))
        if generation != self._generation():
            generation, folders = self._generation(), {}
            self._sessions[session] = generation, folders
        return folders

    def stale(self, session: str) -> tuple[str, ...]:
        """Those of a launcher that is gone; told once, for `of` begins anew."""
        generation, folders = self._sessions.get(session, (-1, {}))
        if generation == self._generation():
            return ()
        return tuple(name for name, folder in folders.items() if isinstance(folder, Standing))

    def look(self, session: str) -> dict[str, Standing | Failing]:
        """Those of one session, to be looked at."""
        generation, folders = self._sessions.get(session, (-1, {}))
        return folders if generation == self._generation() else {}

    def standing(self, session: str, name: str) -> Standing | None:
        found = self.look(session).get(name)
        return found if isinstance(found, Standing) else None

    def arrange(self, session: str, names: Sequence[str]) -> None:
        """Put them in this order."""
        folders = self.of(session)
        for name in names:
            if name in folders:
                folders[name] = folders.pop(name)

    def drop(self, session: str) -> None:
        """It is closed."""
        self._sessions.pop(session, None)
