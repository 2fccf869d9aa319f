"""What issue 4 wants measured: sessions on one disk, folders of each kind, staged commits, files in and out, in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tests.bench.crowded import Crowded, measure_crowded
from tests.bench.files import FULL_FILES, QUICK_FILES, FilesEffort, FilesFigures, measure_files
from tests.bench.folders import FULL_FOLDERS, QUICK_FOLDERS, FolderEffort, FolderFigures, measure_folders
from tests.bench.folders_start import FolderStarts, measure_folder_starts
from tests.bench.guest import SESSION, open_guest
from tests.bench.sessions import SessionFigures, measure_sessions
from tests.bench.staged import FULL_STAGED, QUICK_STAGED, StagedEffort, StagedFigures, measure_staged


class StorageEffort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    crowd: int
    pairs: int
    mounts: int
    folders: FolderEffort
    staged: StagedEffort
    files: FilesEffort


FULL_STORAGE = StorageEffort(
    crowd=2_000, pairs=100, mounts=20, folders=FULL_FOLDERS, staged=FULL_STAGED, files=FULL_FILES
)
QUICK_STORAGE = StorageEffort(
    crowd=200, pairs=20, mounts=5, folders=QUICK_FOLDERS, staged=QUICK_STAGED, files=QUICK_FILES
)


class StorageFigures(Struct, frozen=True, kw_only=True):
    """Everything that one run measured."""

    sessions: SessionFigures
    crowded: Crowded
    starts: FolderStarts
    folders: FolderFigures
    staged: StagedFigures
    files: FilesFigures


def measure_storage(directory: Path, effort: StorageEffort, progress: Callable[[str], None]) -> StorageFigures:
    """`directory` is an empty one that others may pass through; nothing else may run beside it."""
    rooms = {name: directory / name for name in ("sessions", "crowded", "guest", "folders", "staged")}
    for room in rooms.values():
        room.mkdir(mode=0o755)
    progress(f"sessions: {effort.crowd} on one disk")
    sessions = measure_sessions(rooms["sessions"], crowd=effort.crowd, pairs=effort.pairs)
    progress(f"sessions: a command beside {effort.crowd} open ones")
    crowded = measure_crowded(rooms["crowded"], sessions=effort.crowd, pairs=effort.pairs)
    with open_guest(rooms["guest"]) as guest, guest.connect() as client:
        progress("folders: what one costs a command")
        sources = rooms["guest"] / "sources"
        sources.mkdir()
        starts = measure_folder_starts(client, sources, rounds=2 * effort.pairs, mounts=effort.mounts)
        client.session_ensure(name=SESSION)
        files = measure_files(client, effort.files, progress)
    return StorageFigures(
        sessions=sessions,
        crowded=crowded,
        starts=starts,
        files=files,
        folders=measure_folders(rooms["folders"], effort.folders, progress),
        staged=measure_staged(rooms["staged"], effort.staged, progress),
    )
