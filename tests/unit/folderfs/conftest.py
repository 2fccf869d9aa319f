"""A source with something of the user's in it, and a folder over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.folderfs.folder_room import Room, Served


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "kept").mkdir(parents=True)
    (place / "letter").write_text("Dear all,\n")
    (place / "kept" / "photo").write_text("photo")
    return place


@pytest.fixture
def room(source: Path) -> Iterator[Room]:
    opened = Room(source)
    yield opened
    opened.close()


@pytest.fixture
def served(source: Path) -> Iterator[Served]:
    running = Served(source)
    yield running
    running.close()
