"""When a folder stands as it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from coworkd.launcher.folder import Folder, FolderState
from coworkd.model.launch import MountFolder

REQUEST = MountFolder(
    id=5, session="bob", name="work", root=b"/", source=b"srv/work", mode="rw", journal=b"/journal", stage=b""
)


def test_a_new_folder_is_being_mounted_for_who_asked() -> None:
    folder = Folder(REQUEST)
    assert (folder.key, folder.state, folder.waiter) == (("bob", "work"), FolderState.MOUNTING, 5)
    assert (folder.server_pid, folder.dead) == (None, False)


@pytest.mark.parametrize("fields", [{"id": 6}, {"deletes": "allow"}, {"deadline_s": 1.0}])
def test_who_asks_how_long_and_by_what_rule_make_no_difference(fields: dict[str, Any]) -> None:
    assert Folder(REQUEST).is_like(structs.replace(REQUEST, **fields))


@pytest.mark.parametrize(
    "fields", [{"root": b"/srv"}, {"source": b"srv"}, {"mode": "ro"}, {"journal": b""}, {"stage": b"/s"}]
)
def test_source_mode_and_places_do(fields: dict[str, Any]) -> None:
    assert not Folder(REQUEST).is_like(structs.replace(REQUEST, **fields))


def test_in_a_guarded_folder_rwd_is_another_rule_of_rw() -> None:
    folder = Folder(REQUEST)
    rwd = structs.replace(REQUEST, mode="rwd")
    assert not folder.is_like(rwd)
    folder.mounted_as = "guarded"
    assert folder.is_like(rwd)
    assert not folder.is_like(structs.replace(REQUEST, mode="ro"))
