"""`services.bridges_paths`: the way to a socket must be nobody else's to change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.errors import InvalidState, PolicyDenied
from coworkd.model.uids import MAX_UID, MIN_UID
from coworkd.services.bridges_paths import check_path

SESSION_UID = MIN_UID + 7


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Path → the uid and gid it is said to have."""
    made: dict[str, tuple[int, int]] = {}
    lstat = os.lstat

    def said(path: str) -> os.stat_result:
        found = list(lstat(path))
        if path in made:
            found[4], found[5] = made[path]
        return os.stat_result(found)

    monkeypatch.setattr("coworkd.services.bridges_paths.os.lstat", said)
    return made


def test_a_private_directory_is_fine_also_for_what_is_not_there_yet(tmp_path: Path) -> None:
    check_path(str(tmp_path / "x.sock"), own=())


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidState, match="nowhere"):
        check_path(str(tmp_path / "nowhere" / "x.sock"), own=())


def test_a_file_for_a_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidState):
        check_path(str(tmp_path / "file" / "x.sock"), own=())


@pytest.mark.parametrize("uid", [MIN_UID, MAX_UID])
def test_a_directory_of_a_sessions_is_refused_wherever_it_is_on_the_way(
    tmp_path: Path, owners: dict[str, tuple[int, int]], uid: int
) -> None:
    (tmp_path / "home" / "below").mkdir(parents=True)
    owners[str(tmp_path / "home")] = (uid, 0)
    with pytest.raises(PolicyDenied, match="home"):
        check_path(str(tmp_path / "home" / "below" / "x.sock"), own=())


def test_a_link_into_a_sessions_directory_is_refused(tmp_path: Path, owners: dict[str, tuple[int, int]]) -> None:
    (tmp_path / "home").mkdir()
    owners[str(tmp_path / "home")] = (SESSION_UID, 0)
    (tmp_path / "x.sock").symlink_to(tmp_path / "home" / "y.sock")
    with pytest.raises(PolicyDenied):
        check_path(str(tmp_path / "x.sock"), own=())


@pytest.mark.parametrize(
    ("mode", "gid", "allowed"),
    [(0o777, 0, False), (0o1777, 0, True), (0o770, SESSION_UID, False), (0o770, 0, True), (0o750, SESSION_UID, True)],
)
def test_who_else_may_write_there_decides(
    tmp_path: Path, owners: dict[str, tuple[int, int]], mode: int, gid: int, allowed: bool
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    owners[str(shared)] = (0, gid)
    if allowed:
        check_path(str(shared / "x.sock"), own=())
    else:
        with pytest.raises(PolicyDenied, match="shared"):
            check_path(str(shared / "x.sock"), own=())


def test_our_own_sockets_are_refused_under_any_name(tmp_path: Path) -> None:
    own = tmp_path / "coworkd.sock"
    own.touch()
    (tmp_path / "link").symlink_to(own)
    (tmp_path / "hard").hardlink_to(own)
    for name in ("coworkd.sock", "link", "hard"):
        with pytest.raises(PolicyDenied, match="coworkd's own"):
            check_path(str(tmp_path / name), own=(str(own),))
    check_path(str(tmp_path / "other"), own=(str(own),))


def test_our_own_socket_is_refused_before_it_is_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyDenied):
        check_path(str(tmp_path / "coworkd.sock"), own=(str(tmp_path / "coworkd.sock"),))
