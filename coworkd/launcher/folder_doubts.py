"""Commands that were killed and do not end, because a guarded folder's source hangs: whoever waits for our own file system cannot be
ended by anybody while it waits for a share.

Rules
- `_PATIENCE_S` after a kill, and again while a killed command lives, the file systems of the session's guarded folders are looked at. One
  that stands still in the kernel is cut off: who waits for it gets ECONNABORTED, and can end. Others are left alone.
- A folder that was cut off is dead: its socket ends for the supervisor too, and it is mounted anew when it is asked for.
- Nothing helps where a share was mounted as it is (`ro`, `rwd` by bind): there the kernel waits for the share.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

from coworkd.launcher.errand import Errand
from coworkd.launcher.folder import Folder
from coworkd.launcher.folder_place import FolderPlace
from coworkd.launcher.folders import Folders
from coworkd.launcher.readers import Readers

_PATIENCE_S = 2.0
_DEADLINE_S = 10.0


class Doubts:
    """Looks after sessions in which something was killed."""

    def __init__(self, folders: Folders, *, readers: Readers, lives: Callable[[str], bool]) -> None:
        """`lives` says whether a command of a session was killed and lives still."""
        self._folders = folders
        self._readers = readers
        self._lives = lives
        self._due: dict[str, float] = {}
        self._looking: dict[int, tuple[Errand, Folder]] = {}

    def killed(self, session: str) -> None:
        """A command of it was killed."""
        if session not in self._due and self._folders.guarded(session):
            self._due[session] = time.monotonic() + _PATIENCE_S

    def next_due(self) -> float | None:
        """When (monotonic) `end_late` has something to do."""
        if not self._due and not self._looking:
            return None
        deadlines = [errand.deadline for errand, _ in self._looking.values() if not errand.gone]
        return min((*self._due.values(), *deadlines), default=None)

    def end_late(self) -> None:
        """Look where it is time to, and give up looks that take too long."""
        now = time.monotonic()
        for session, due in list(self._due.items()):
            if now >= due:
                del self._due[session]
                if self._lives(session):
                    self._look(session)
        for errand, folder in list(self._looking.values()):
            if now > errand.deadline:
                errand.kill()
                self._settle(errand, folder)

    def reaped(self, pid: int) -> None:
        """A child is gone, perhaps one of ours; what it told is still to be read."""
        looking = self._looking.get(pid)
        if looking is not None:
            looking[0].reaped()

    def _look(self, session: str) -> None:
        for folder, place in self._folders.guarded(session):
            try:
                self._start(folder, place)
            except OSError as error:
                print(f"coworkd-launcher: nobody looks after folder {folder.request.name!r}: {error}", file=sys.stderr)
        self.killed(session)

    def _start(self, folder: Folder, place: FolderPlace) -> None:
        keep = (place.mount_namespace,)
        errand = Errand(place.cut_off_if_hung, name="coworkd-folder", keep=keep, deadline_s=_DEADLINE_S)
        self._looking[errand.pid] = errand, folder
        self._readers.register(errand.fileno(), partial(self._told, errand, folder))

    def _told(self, errand: Errand, folder: Folder) -> None:
        report, _ = errand.take()
        self._settle(errand, folder)
        if report.busy:
            self._folders.cut_off(folder)

    def _settle(self, errand: Errand, folder: Folder) -> None:
        self._readers.unregister(errand.fileno())
        errand.close()
        del self._looking[errand.pid]
