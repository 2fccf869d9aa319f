from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from coworkd.model.errors import DiskFailed, LimitExceeded, PolicyDenied
from coworkd.model.uids import MAX_UID, MIN_UID
from coworkd.services import session_home
from coworkd.services.session_home import Homes
from coworkd.system import accounts
from coworkd.system.accounts import AccountToolFailed


class System:
    """The guest's accounts, as `system.accounts` tells them."""

    def __init__(self) -> None:
        self.uids = {"alice": 1001}
        self.living: set[int] = {0}
        self.ranges: list[range] = []
        self.added: list[tuple[str, int, str]] = []
        self.removed: list[str] = []
        self.homes: dict[str, str] = {}
        self.error: OSError | None = None
        self.told: list[str | None] = []

    def account_uid(self, name: str) -> int | None:
        return self.uids.get(name)

    def account_name(self, uid: int) -> str | None:
        return next((name for name, known in self.uids.items() if known == uid), None)

    def taken_uids(self) -> set[int]:
        return {*self.uids.values(), *self.living}

    def subordinate_ranges(self) -> list[range]:
        return self.ranges

    def account_home(self, name: str) -> str | None:
        return self.homes.get(name, f"/home/{name}") if name in self.uids else None

    def add_account(self, name: str, uid: int, home: str) -> None:
        if self.error is not None:
            raise self.error
        self.added.append((name, uid, home))
        self.uids[name], self.homes[name] = uid, home

    def remove_account(self, name: str) -> None:
        if self.error is not None:
            raise self.error
        self.removed.append(name)
        self.uids.pop(name, None)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System()
    for name in (
        "account_uid",
        "account_name",
        "taken_uids",
        "subordinate_ranges",
        "account_home",
        "add_account",
        "remove_account",
    ):
        monkeypatch.setattr(accounts, name, getattr(made, name))
    return made


@pytest.fixture
def homes(tmp_path: Path, system: System) -> Homes:
    made = Homes(str(tmp_path / "homes"), with_accounts=True, on_accounts=system.told.append)
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
    assert system.added == [("bob", os.geteuid(), str(home))]
    assert set(system.told) == {None}


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


@pytest.mark.parametrize("plant", ["link", "file"])
def test_remove_takes_what_stands_in_place_of_a_home_and_no_more(
    system: System, homes: Homes, tmp_path: Path, plant: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    if plant == "link":
        os.symlink(outside, homes.path("bob"))
    else:
        os.link(outside / "kept", homes.path("bob"))
    assert homes.remove("bob") == 0
    assert not homes.exists("bob")
    assert (outside / "kept").exists()


def test_remove_that_fails_is_told(system: System, homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    as_self(homes)

    def fail(path: str) -> int:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(session_home, "remove_tree", fail)
    with pytest.raises(DiskFailed, match="cannot be removed whole"):
        homes.remove("bob")


def test_prepare_tells_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskFailed, match="file"):
        Homes(str(tmp_path / "file"), with_accounts=False).prepare()


def test_prepare_lets_nobody_look_in(homes: Homes) -> None:
    assert stat.S_IMODE(os.stat(homes.directory).st_mode) & 0o066 == 0


# -- accounts are a convenience ---------------------------------------------------------------------------------------


def test_a_session_does_without_an_account_that_cannot_be_written(system: System, homes: Homes) -> None:
    system.error = AccountToolFailed(errno.EIO, "useradd ended with 1: read-only")
    as_self(homes)
    assert homes.exists("bob")
    (told,) = system.told
    assert told is not None
    assert "read-only" in told
    system.error = None
    as_self(homes)
    assert system.told[-1] is None
    assert [name for name, _, _ in system.added] == ["bob"]


def test_an_account_of_an_earlier_life_is_made_anew_with_the_uid_of_now(system: System, homes: Homes) -> None:
    system.uids["bob"], system.homes["bob"] = 1077, homes.path("bob")
    homes.refuse_system_name("bob", None)
    as_self(homes)
    assert system.removed == ["bob"]
    assert system.uids["bob"] == os.geteuid()


def test_an_account_of_somebody_else_is_never_touched(system: System, homes: Homes) -> None:
    as_self(homes, "alice")
    (told,) = system.told
    assert told is not None
    assert "another's" in told
    homes.remove("alice")
    assert (system.added, system.removed, system.uids) == ([], [], {"alice": 1001})


def test_remove_takes_its_own_account_along_and_goes_on_without(system: System, homes: Homes) -> None:
    as_self(homes)
    system.error = AccountToolFailed(errno.EIO, "userdel ended with 1")
    homes.remove("bob")
    assert not homes.exists("bob")
    system.error = None
    homes.remove("bob")
    assert system.removed == ["bob"]


# -- making is one step -----------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The power fails here."""


@pytest.mark.parametrize("step", ["mkdir", "fchown", "fchmod", "rename", "symlink"])
def test_a_home_is_there_whole_or_not_at_all(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    skeleton = tmp_path / "skel"
    (skeleton / "a").mkdir(parents=True)
    (skeleton / "link").symlink_to("a")
    homes = Homes(str(tmp_path / "homes"), with_accounts=False, skeleton=str(skeleton))
    homes.prepare()

    def crash(*arguments: object, **named: object) -> None:
        raise Crash

    with monkeypatch.context() as crashing:
        crashing.setattr(os, step, crash)
        with pytest.raises(Crash):
            as_self(homes)
    assert not homes.exists("bob")
    assert homes.scan() == {}
    assert os.listdir(homes.directory) == []
    as_self(homes)
    assert sorted(os.listdir(homes.path("bob"))) == ["a", "link", "mnt"]
    assert homes.scan() == {"bob": os.geteuid()}


def test_a_home_without_skeleton_where_none_is_wanted_and_never_again(system: System, tmp_path: Path) -> None:
    skeleton = tmp_path / "skel"
    skeleton.mkdir()
    (skeleton / ".profile").touch()
    homes = Homes(str(tmp_path / "homes"), with_accounts=False, skeleton=str(skeleton))
    homes.prepare()
    homes.make("bob", os.geteuid(), False)
    homes.make("bob", os.geteuid(), True)
    assert os.listdir(homes.path("bob")) == ["mnt"]


def test_a_skeleton_that_cannot_be_copied_is_told_and_leaves_no_home(system: System, tmp_path: Path) -> None:
    homes = Homes(str(tmp_path / "homes"), with_accounts=False, skeleton=str(tmp_path / "none"))
    homes.prepare()
    with pytest.raises(DiskFailed, match=r"skeleton .*none cannot be copied"):
        as_self(homes)
    assert not homes.exists("bob")


def test_scan_tells_homes_and_nothing_else(system: System, homes: Homes) -> None:
    for name in ("bob", "lost+found", ".coworkd", "root", "UPPER"):
        os.mkdir(homes.path(name))
    os.symlink("bob", homes.path("link"))
    Path(homes.path("file")).touch()
    assert homes.scan() == {"bob": os.geteuid()}


# -- the kernel's quota -----------------------------------------------------------------------------------------------


class FakeQuota:
    """Implements `ports.QuotaPort`."""

    def __init__(self, kind: Literal["project", "watched"] = "project") -> None:
        self.kind = kind
        self.limits: list[tuple[str, int, int, int]] = []
        self.error: OSError | None = None

    def set_limit(self, path: str, project: int, limit_bytes: int, limit_files: int) -> None:
        if self.error is not None:
            raise self.error
        self.limits.append((os.path.basename(path), project, limit_bytes, limit_files))

    def usage(self, project: int) -> tuple[int, int]:
        return (0, 0)


def test_a_home_is_counted_before_anything_is_in_it(system: System, tmp_path: Path) -> None:
    quota = FakeQuota()
    homes = Homes(str(tmp_path), with_accounts=False, quota=quota)
    as_self(homes)
    assert quota.limits == [(".making-bob", os.geteuid(), 0, 0)]
    homes.limit("bob", 1001, 4096_000)
    assert quota.limits[-1] == ("bob", 1001, 4096_000, 1000)
    quota.error = OSError(errno.EPERM, "no")
    with pytest.raises(DiskFailed, match="kept to its part"):
        homes.limit("bob", 1001, 1)


def test_a_kernel_without_quota_is_not_asked(system: System, tmp_path: Path) -> None:
    quota = FakeQuota("watched")
    homes = Homes(str(tmp_path), with_accounts=False, quota=quota)
    as_self(homes)
    homes.limit("bob", 1001, 1)
    assert quota.limits == []
