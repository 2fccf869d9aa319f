from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.measure import ReownTree
from coworkd.workers import measure_reown
from tests.unit.workers.trees import write


class Owners:
    """Who owns what, by inode: giving a file away for real needs root."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.owners: dict[int, tuple[int, int]] = {}
        self.given: list[str] = []
        self.crash_at = -1
        real = os.fstat

        def told(fd: int) -> os.stat_result:
            found = real(fd)
            uid, gid = self.owners.get(found.st_ino, (1001, 1001))
            return os.stat_result(
                (*found[:4], uid, gid, *found[6:10]), {"st_dev": found.st_dev, "st_ino": found.st_ino}
            )

        def give(fd: int, uid: int, gid: int) -> None:
            if len(self.given) == self.crash_at:
                raise KeyboardInterrupt
            self.given.append(os.readlink(f"/proc/self/fd/{fd}"))
            self.owners[real(fd).st_ino] = (uid, gid)

        monkeypatch.setattr(os, "fstat", told)
        monkeypatch.setattr(measure_reown, "give", give)


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Owners:
    return Owners(monkeypatch)


def reown(tmp_path: Path) -> int:
    wanted = ReownTree(id=1, root=os.fsencode(tmp_path), path=b"home", uid_from=1001, uid_to=1005)
    return measure_reown.reown(wanted).changed


def test_all_of_one_uid_is_given_to_another_and_the_top_last(tmp_path: Path, owners: Owners) -> None:
    write(tmp_path / "home/a/b")
    (tmp_path / "home/link").symlink_to("/etc")
    foreign = write(tmp_path / "home/foreign")
    owners.owners[foreign.stat().st_ino] = (0, 0)
    assert reown(tmp_path) == 4
    home = str(tmp_path / "home")
    assert set(owners.given) == {home, f"{home}/a", f"{home}/a/b", f"{home}/link"}
    assert owners.given[-1] == home
    assert owners.owners[foreign.stat().st_ino] == (0, 0)
    assert reown(tmp_path) == 0


def test_a_group_alone_is_given_too(tmp_path: Path, owners: Owners) -> None:
    made = write(tmp_path / "home/a")
    owners.owners[made.stat().st_ino] = (2000, 1001)
    reown(tmp_path)
    assert owners.owners[made.stat().st_ino] == (2000, 1005)


def test_one_that_was_cut_short_goes_on(tmp_path: Path, owners: Owners) -> None:
    for number in range(10):
        write(tmp_path / f"home/{number}")
    owners.crash_at = 4
    with pytest.raises(KeyboardInterrupt):
        reown(tmp_path)
    owners.crash_at = -1
    assert reown(tmp_path) == 7
    assert len(set(owners.given)) == 11


def test_a_home_that_is_a_link_is_left_alone(tmp_path: Path, owners: Owners) -> None:
    (tmp_path / "home").symlink_to("/etc")
    assert reown(tmp_path) == 0
    assert owners.given == []
