from __future__ import annotations

import pytest

from coworkd.model.errors import NotFound
from coworkd.model.folder import MountedAs
from coworkd.model.policy import FolderMode
from coworkd.services.folders_live import Failing, LiveFolders, Standing
from tests.unit.services.session_house import folder


@pytest.mark.parametrize(
    ("mounted_as", "before", "after", "can"),
    [
        ("idmapped", "ro", "ro", True),
        ("idmapped", "ro", "rwd", False),
        ("idmapped", "rwd", "rw", False),
        ("guarded", "rw", "rwd", True),
        ("guarded", "rwd", "rw", True),
        ("guarded", "rw", "ro", False),
        ("guarded", "rw", "staged", False),
        ("overlay", "staged", "rwd", False),
    ],
)
def test_only_a_guarded_folder_becomes_another_without_being_mounted_anew(
    mounted_as: MountedAs, before: FolderMode, after: FolderMode, can: bool
) -> None:
    standing = Standing(folder(mode=before), mounted_as, (), False)
    assert standing.becomes(folder(mode=after, required=False)) is can
    assert not standing.becomes(folder(mode=after, source="/elsewhere"))


def test_another_launcher_has_nothing_and_what_it_had_is_told_once() -> None:
    generation = 1
    live = LiveFolders(lambda: generation)
    live.of("bob")["a"] = standing = Standing(folder("a"), "bind", (), False)
    live.of("bob")["b"] = Failing(folder("b"), NotFound("no"))
    assert live.standing("bob", "a") == standing
    assert live.standing("bob", "b") is None
    assert live.stale("bob") == ()
    generation = 2
    assert live.look("bob") == {}
    assert live.stale("bob") == ("a",)
    live.of("bob")["c"] = standing
    assert live.stale("bob") == ()
    assert list(live.look("bob")) == ["c"]


def test_what_was_mounted_at_once_is_in_the_order_asked_for() -> None:
    live = LiveFolders(lambda: 1)
    for name in ("c", "a", "b"):
        live.of("bob")[name] = Standing(folder(name), "bind", (), False)
    live.arrange("bob", ["a", "b", "missing", "c"])
    assert list(live.look("bob")) == ["a", "b", "c"]
    live.drop("bob")
    live.drop("bob")
    assert live.look("bob") == {}
