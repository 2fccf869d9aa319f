"""A staged folder made by hand, as overlayfs with `userxattr` would leave it: a source, and what a session has changed of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from coworkd.model.stage import (
    CommitStaged,
    DiffStaged,
    DiscardStaged,
    ListStaged,
    Prepared,
    PrepareStage,
    StageAnswer,
    StageCommitted,
    Staged,
    StagedDiff,
    StageDiscarded,
    StagedListed,
    StagePlace,
    TakeBaseline,
    ToStage,
)
from coworkd.workers.stage_room import Stage
from coworkd.workers.stage_work import answer

PREFIX = "user."
_A = TypeVar("_A")


def no_step(path: bytes) -> None:
    """Nobody asks how far it is."""


class StagedFolder:
    """A source and its stage below a test's directory."""

    def __init__(self, top: Path) -> None:
        self.source = top / "share" / "source"
        self.source.mkdir(parents=True)
        self.stage = top / "stages" / "work" / "folder"
        self.upper = self.stage / "upper"
        self.place = StagePlace(stage=bytes(self.stage), root=bytes(top / "share"), source=b"source")

    # -- the user's own doing ------------------------------------------------------------------------------------

    def has(self, **files: bytes | None) -> None:
        """Put files into the source; `__` stands for `/`, None for a directory."""
        for name, data in files.items():
            path = self.source / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(data)

    # -- the session's doing --------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes, mode: int = 0o644) -> Path:
        """A file of the session's, in directories that are as in the source."""
        path = self.upper / name
        self.enter(os.path.dirname(name))
        if path.exists() and stat.S_ISCHR(path.lstat().st_mode):
            path.unlink()
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def enter(self, name: str) -> Path:
        """A directory of the session's, with the mode of the source's where that has one."""
        made = self.upper
        for part in Path(name).parts:
            made = made / part
            if not made.is_dir():
                made.mkdir()
                of_source = self.source / made.relative_to(self.upper)
                made.chmod(stat.S_IMODE(of_source.stat().st_mode) if of_source.is_dir() else 0o755)
        return made

    def delete(self, name: str) -> None:
        """A whiteout."""
        self.enter(os.path.dirname(name))
        os.mknod(self.upper / name, stat.S_IFCHR | 0o000, os.makedev(0, 0))

    def replace(self, name: str) -> Path:
        """A directory that hides what the source has in it."""
        path = self.enter(name)
        os.setxattr(path, f"{PREFIX}overlay.opaque", b"y")
        return path

    # -- the worker's doing ---------------------------------------------------------------------------------------

    def ask(self, request: ToStage, kind: type[_A], step: Callable[[bytes], None] = no_step) -> _A:
        answered: StageAnswer = answer(request, step, xattr_prefix=PREFIX)
        assert isinstance(answered, kind), answered
        return answered

    def prepare(self, *, baseline: bool = True) -> StagedFolder:
        request = PrepareStage(id=1, place=self.place, uid=os.getuid(), gid=os.getgid())
        if self.ask(request, Prepared).needs_baseline and baseline:
            answer(TakeBaseline(id=2, place=self.place), no_step, xattr_prefix=PREFIX)
        return self

    def open(self) -> Stage:
        return Stage(self.place, xattr_prefix=PREFIX)

    def changes(self, after: bytes = b"", limit: int = 1000) -> tuple[Staged, ...]:
        return self.ask(ListStaged(id=3, place=self.place, after=after, limit=limit), StagedListed).changes

    def listed(self) -> list[tuple[str, str]]:
        return [(change.kind, os.fsdecode(change.path)) for change in self.changes()]

    def diff(self, path: bytes) -> StagedDiff:
        return self.ask(DiffStaged(id=4, place=self.place, path=path), StagedDiff)

    def commit(
        self, *paths: bytes, overwrite: bool = False, step: Callable[[bytes], None] = no_step
    ) -> StageCommitted:  # fmt: skip
        request = CommitStaged(id=5, place=self.place, paths=paths or None, overwrite=overwrite)
        return self.ask(request, StageCommitted, step)

    def committed(self, *paths: bytes, overwrite: bool = False) -> dict[str, str]:
        results = self.commit(*paths, overwrite=overwrite).results
        return {os.fsdecode(result.path): result.state for result in results}

    def discard(self, *paths: bytes) -> int:
        return self.ask(DiscardStaged(id=6, place=self.place, paths=paths or None), StageDiscarded).discarded

    def tree(self) -> dict[str, object]:
        """What the source holds: file → content, link → target, directory → None."""
        return tree_of(self.source)


def tree_of(top: Path) -> dict[str, object]:
    """Path → content, target or None; nothing is followed."""
    found: dict[str, object] = {}
    for directory, inner, files in os.walk(top):
        for name in [*inner, *files]:
            path = Path(directory) / name
            key = str(path.relative_to(top))
            if path.is_symlink():
                found[key] = os.readlink(path)
            elif path.is_dir():
                found[key] = None
            else:
                found[key] = path.read_bytes()
    return found
