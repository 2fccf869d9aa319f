"""What the launcher kept of commands that ran before this coworkd, from its telling until somebody takes it.

Rules
- Between the two, disks are checked and mounted: what becomes of a command meanwhile is part of what is taken.
- Where the launcher is lost before that, whoever takes a command and asks for its news hears so.
- Told twice, the later telling counts. What nobody takes is closed.
"""

from __future__ import annotations

from msgspec import structs

from coworkd.model.launch import Adopted, Exited, Notice, Started, StartError
from coworkd.model.ports import SpawnedFds


class Untaken:
    """Owns the descriptors of what it keeps."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Adopted, SpawnedFds]] = {}
        self._lost: set[str] = set()

    def keep(self, adopted: Adopted, fds: SpawnedFds) -> None:
        before = self._kept.pop(adopted.process, None)
        if before is not None:
            before[1].close()
        self._lost.discard(adopted.process)
        self._kept[adopted.process] = adopted, fds

    def carry(self, adopted: Adopted, fds: SpawnedFds) -> None:
        """Keep what a coworkd before us, and no launcher, kept of a command that has ended; without an exit it was lost."""
        self.keep(adopted, fds)
        if adopted.exited is None:
            self._lost.add(adopted.process)

    def learn(self, notice: Notice) -> bool:
        """Whether that is news of a command that is kept here."""
        if notice.process not in self._kept:
            return False
        adopted, fds = self._kept[notice.process]
        match notice:
            case Started():
                adopted = structs.replace(adopted, started=notice)
            case StartError():
                adopted = structs.replace(adopted, start_error=notice)
            case Exited():
                adopted = structs.replace(adopted, exited=notice)
        self._kept[notice.process] = adopted, fds
        return True

    def lose(self) -> None:
        """The launcher is gone, and with it every command that had not ended."""
        ended = {name for name, (adopted, _) in self._kept.items() if adopted.exited or adopted.start_error}
        self._lost |= self._kept.keys() - ended

    def was_lost(self, process: str) -> bool:
        """Whether that was lost before it was taken; told once."""
        lost = process in self._lost
        self._lost.discard(process)
        return lost

    def take(self) -> list[tuple[Adopted, SpawnedFds]]:
        """All of it, the caller's from now on."""
        taken, self._kept = self._kept, {}
        return list(taken.values())

    def close(self) -> None:
        for _, fds in self.take():
            fds.close()
