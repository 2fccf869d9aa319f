from __future__ import annotations

import errno
import grp
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coworkd.system import accounts
from coworkd.system.accounts import AccountToolFailed


class Tools:
    """Stands for subprocess.run; remembers what was run."""

    def __init__(self, *failing: str, error: Exception | None = None) -> None:
        self.argv: list[list[str]] = []
        self.failing = failing
        self.error = error

    def run(self, argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert options["env"] == {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.argv.append(argv)
        if self.error is not None:
            raise self.error
        return subprocess.CompletedProcess(argv, 9 if argv[0] in self.failing else 0, "", "no room\n")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Tools:
    made = Tools()
    monkeypatch.setattr(subprocess, "run", made.run)
    return made


def test_account_uid_and_name_know_root() -> None:
    assert accounts.account_uid("root") == 0
    assert accounts.account_name(0) == "root"


def test_account_uid_and_name_of_nobody_are_none() -> None:
    assert accounts.account_uid("no-such-account") is None
    assert accounts.account_name(2**31 - 7) is None


def test_group_gid_tells_both_ways() -> None:
    assert accounts.group_gid("root") == 0
    assert accounts.group_gid("no-such-group") is None


def test_account_home_tells_both_ways() -> None:
    assert accounts.account_home("root") == pwd.getpwnam("root").pw_dir
    assert accounts.account_home("no-such-account") is None


def test_owners_by_id_hold_accounts_and_groups() -> None:
    found = accounts.owners_by_id()
    assert found[0] == "root"
    assert {entry.gr_gid for entry in grp.getgrall()} | {entry.pw_uid for entry in pwd.getpwall()} == set(found)


def test_taken_uids_are_those_processes_run_as_whoever_owns_their_directories(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tx\nUid:\t0\t61184\t61185\t61184\nGid:\t5\t5\t5\t5\n")
    (tmp_path / "8").mkdir()  # gone in this moment
    assert {0, 61184, 61185} <= accounts.taken_uids(str(tmp_path))


def test_taken_uids_hold_accounts_and_living_processes() -> None:
    taken = accounts.taken_uids()
    assert {0, os.geteuid()} <= taken
    assert {entry.pw_uid for entry in pwd.getpwall()} <= taken


def test_subordinate_ranges_reads_what_can_be_read(tmp_path: Path) -> None:
    subuid = tmp_path / "subuid"
    subuid.write_text("alice:100000:65536\n# odd\nbob:x:1\nbob:1:\n1001:200000:10\n")
    ranges = accounts.subordinate_ranges((str(subuid), str(tmp_path / "missing")))
    assert ranges == [range(100000, 165536), range(200000, 200010)]


def test_add_account_makes_a_group_and_a_user_without_a_login(tools: Tools) -> None:
    accounts.add_account("no-such-account", 1234, "/sessions/x")
    (group, user) = tools.argv
    assert group == ["groupadd", "--gid", "1234", "no-such-account"]
    assert user[0] == "useradd"
    assert user[user.index("--shell") + 1].endswith("nologin")
    assert "--no-create-home" in user


def test_add_account_goes_on_where_only_the_group_was_made(tools: Tools) -> None:
    accounts.add_account("root", 0, "/root")
    assert [argv[0] for argv in tools.argv] == ["useradd"]


def test_add_account_makes_a_group_of_another_number_anew(tools: Tools) -> None:
    accounts.add_account("root", 1234, "/sessions/root")
    assert [argv[0] for argv in tools.argv] == ["groupdel", "groupadd", "useradd"]


def test_remove_account_removes_only_what_is_there(tools: Tools) -> None:
    accounts.remove_account("no-such-account")
    assert tools.argv == []
    accounts.remove_account("root")
    assert tools.argv == [["userdel", "root"], ["groupdel", "root"]]


def test_a_failing_tool_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Tools("groupadd").run)
    with pytest.raises(AccountToolFailed, match="groupadd ended with 9: no room") as caught:
        accounts.add_account("no-such-account", 1234, "/x")
    assert caught.value.errno == errno.EIO


def test_a_hanging_tool_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Tools(error=subprocess.TimeoutExpired("groupadd", 30)).run)
    with pytest.raises(AccountToolFailed, match="did not end") as caught:
        accounts.add_account("no-such-account", 1234, "/x")
    assert caught.value.errno == errno.ETIMEDOUT
