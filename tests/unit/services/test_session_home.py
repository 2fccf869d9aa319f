from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed, LimitExceeded, PolicyDenied
from coworkd.model.names import MAX_UID, MIN_UID
from coworkd.services.session_home import Homes
from coworkd.system import accounts


class System:
    """The guest's accounts, as `system.accounts` tells them."""

    def __init__(self) -> None:
        self.uids = {"alice": 1001}
        self.living: set[int] = {0}
        self.ranges: list[range] = []
        self.added: list[tuple[str, int, str]] = []

    def account_uid(self, name: str) -> int | None:
        return self.uids.get(name)

    def account_name(self, uid: int) -> str | None:
        return next((name for name, known in self.uids.items() if known == uid), None)

    def taken_uids(self) -> set[int]:
        return {*self.uids.values(), *self.living}

    def subordinate_ranges(self) -> list[range]:
        return self.ranges

    def add_account(self, name: str, uid: int, home: str) -> None:
        self.added.append((name, uid, home))

    def remove_account(self, name: str) -> None:
        self.uids.pop(name, None)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System()
    for name in (
        "account_uid",
        "account_name",
        "taken_uids",
        "subordinate_ranges",
        "add_account",
        "remove_account",
    ):
        monkeypatch.setattr(accounts, name, getattr(made, name))
    return made


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    made = Homes(str(tmp_path / "homes"), with_accounts=True)
    made.prepare()
    return made


Own = Callable[[str, int], None]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, homes: Homes) -> Own:
    """Have a home be there and look as if a uid owned it: no root is needed to say so."""
    owners: dict[str, int] = {}
    lstat = os.lstat

    def told(path: str) -> os.stat_result:
        found = lstat(path)
        uid = owners.get(os.path.basename(path))
        return found if uid is None else os.stat_result((*found[:4], uid, *found[5:10]))

    def set_owner(name: str, uid: int) -> None:
        os.mkdir(homes.path(name))
        owners[name] = uid

    monkeypatch.setattr(os, "lstat", told)
    return set_owner


def test_the_lowest_uid_that_is_nobodys_is_chosen(system: System, homes: Homes, own: Own) -> None:
    own("eve", 1004)
    system.living.add(1002)
    system.ranges = [range(1003, 1004), range(1006, 1007)]
    assert homes.choose_uid("bob", [1005]) == 1007
    assert homes.choose_uid("bob", []) == 1005


def test_a_home_left_behind_keeps_its_uid(system: System, homes: Homes, own: Own) -> None:
    own("bob", 1234)
    system.living.add(1234)
    assert homes.choose_uid("bob", []) == 1234


@pytest.mark.parametrize("owner", [0, 1000, MAX_UID + 1, 65534, 1001])
def test_a_home_of_somebody_else_gives_no_uid(system: System, homes: Homes, own: Own, owner: int) -> None:
    own("bob", owner)
    assert homes.choose_uid("bob", []) not in (owner, 1001)


def test_a_home_of_a_uid_another_record_has_gives_no_uid(system: System, homes: Homes, own: Own) -> None:
    own("bob", 1234)
    assert homes.choose_uid("bob", [1234]) == 1002


def test_a_home_whose_account_is_its_own_keeps_its_uid(system: System, homes: Homes, own: Own) -> None:
    own("bob", 1234)
    system.uids["bob"] = 1234
    assert homes.choose_uid("bob", []) == 1234


def test_no_uid_left_is_told(system: System, homes: Homes) -> None:
    system.ranges = [range(MIN_UID, MAX_UID + 1)]
    with pytest.raises(LimitExceeded, match="delete sessions"):
        homes.choose_uid("bob", [])


def test_homes_that_vanish_meanwhile_are_nobodys(system: System, homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda path: ["gone"])
    assert homes.choose_uid("bob", []) == 1002


def test_a_name_of_the_system_is_refused(system: System, homes: Homes) -> None:
    with pytest.raises(PolicyDenied, match="'alice' is an account"):
        homes.refuse_system_name("alice", None)
    with pytest.raises(PolicyDenied):
        homes.refuse_system_name("alice", 1002)
    homes.refuse_system_name("alice", 1001)
    homes.refuse_system_name("bob", None)


def test_an_account_left_behind_with_its_home_is_its_own(system: System, homes: Homes, own: Own) -> None:
    own("alice", 1001)
    homes.refuse_system_name("alice", None)


def test_a_system_account_is_never_left_behind(system: System, homes: Homes, own: Own) -> None:
    system.uids["svc"] = 500
    own("svc", 500)
    with pytest.raises(PolicyDenied):
        homes.refuse_system_name("svc", None)


def as_self(homes: Homes, name: str = "bob") -> None:
    homes.make(name, os.geteuid())


def test_make_twice_is_make_once(system: System, homes: Homes) -> None:
    as_self(homes)
    (Path(homes.path("bob")) / "kept").touch()
    as_self(homes)
    home = Path(homes.path("bob"))
    assert sorted(path.name for path in home.iterdir()) == ["kept", "mnt"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert system.added == [("bob", os.geteuid(), str(home))] * 2


def test_make_writes_no_account_where_none_is_wanted(system: System, tmp_path: Path) -> None:
    homes = Homes(str(tmp_path), with_accounts=False)
    as_self(homes)
    assert system.added == []


def test_make_follows_no_planted_link(system: System, homes: Homes, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    os.symlink(outside, homes.path("bob"))
    with pytest.raises(DiskFailed) as caught:
        as_self(homes)
    assert caught.value.details["errno"] in (errno.ELOOP, errno.ENOTDIR)
    assert list(outside.iterdir()) == []


def test_remove_takes_all_and_tells_what_it_freed(system: System, homes: Homes, tmp_path: Path) -> None:
    as_self(homes)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(bytes(100_000))
    home = Path(homes.path("bob"))
    (home / "data").write_bytes(b"x" * 100_000)
    (home / "link").symlink_to(outside)
    assert 100_000 <= homes.remove("bob") < 200_000
    assert not homes.exists("bob")
    assert (outside / "kept").exists()
    assert homes.remove("bob") == 0


def test_remove_follows_no_link_in_place_of_a_home(system: System, homes: Homes, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    os.symlink(outside, homes.path("bob"))
    with pytest.raises(DiskFailed):
        homes.remove("bob")
    assert (outside / "kept").exists()


def test_prepare_tells_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskFailed, match="file"):
        Homes(str(tmp_path / "file"), with_accounts=False).prepare()


def test_prepare_lets_nobody_look_in(homes: Homes) -> None:
    assert stat.S_IMODE(os.stat(homes.directory).st_mode) & 0o066 == 0
