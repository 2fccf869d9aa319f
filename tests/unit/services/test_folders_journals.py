from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed
from coworkd.services.folders_journals import Journals


def test_a_journal_belongs_to_one_source(tmp_path: Path) -> None:
    journals = Journals(str(tmp_path))
    path = journals.path("bob", "my src", b"/srv/src")
    assert path.startswith(bytes(tmp_path) + b"/folders/bob/my src.")
    assert path == journals.path("bob", "my src", b"/srv/src")
    assert len({path, journals.path("bob", "my src", b"/srv/other"), journals.path("eve", "my src", b"/srv/src")}) == 3


def test_only_those_of_todays_folders_are_kept(tmp_path: Path) -> None:
    journals = Journals(str(tmp_path))
    journals.prepare("bob", [("a", b"/srv/a")])
    kept, gone = journals.path("bob", "a", b"/srv/a"), journals.path("bob", "a", b"/srv/before")
    for path in (kept, gone):
        Path(os.fsdecode(path)).write_bytes(b"names")
    journals.prepare("bob", [("a", b"/srv/a")])
    assert os.listdir(tmp_path / "folders" / "bob") == [os.path.basename(os.fsdecode(kept))]
    assert [(tmp_path / part).stat().st_mode & 0o777 for part in ("folders", "folders/bob")] == [0o700, 0o700]


def test_a_session_that_goes_leaves_none(tmp_path: Path) -> None:
    journals = Journals(str(tmp_path))
    journals.prepare("bob", [("a", b"/srv/a")])
    Path(os.fsdecode(journals.path("bob", "a", b"/srv/a"))).touch()
    journals.forget("bob")
    journals.forget("bob")
    assert os.listdir(tmp_path / "folders") == []


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "folders").write_text("in the way")
    with pytest.raises(DiskFailed) as caught:
        Journals(str(tmp_path)).prepare("bob", [("a", b"/srv/a")])
    assert caught.value.details["path"].endswith("folders/bob")


def test_a_session_that_needs_none_needs_no_disk(tmp_path: Path) -> None:
    Journals(str(tmp_path / "gone")).prepare("bob", [])
    Journals(str(tmp_path / "gone")).forget("bob")
    assert os.listdir(tmp_path) == []
