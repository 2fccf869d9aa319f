from __future__ import annotations

import pwd
import socket
import types
from pathlib import Path

import pytest

from coworkd.cli import egress_start
from coworkd.cli.egress_start import UIDS, choose_ids, ensure_egress
from coworkd.model.errors import Unavailable
from coworkd.model.uids import MAX_UID
from coworkd.system import accounts


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(egress_start, "pwd", types.SimpleNamespace(getpwnam=unknown))


def test_no_session_can_have_a_uid_of_the_range() -> None:
    assert UIDS.start > MAX_UID


@pytest.mark.usefixtures("no_account")
def test_a_uid_that_somebody_has_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "taken_uids", lambda: {UIDS[0], UIDS[2]})
    monkeypatch.setattr(accounts, "subordinate_ranges", lambda: [range(UIDS[1], UIDS[2])])
    assert choose_ids() == (UIDS[3], UIDS[3])
    assert choose_ids(start=len(UIDS) - 1) == (UIDS[-1], UIDS[-1])
    assert choose_ids(start=3 * len(UIDS)) == (UIDS[3], UIDS[3])


@pytest.mark.usefixtures("no_account")
def test_no_free_uid_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "taken_uids", lambda: set(UIDS))
    with pytest.raises(Unavailable, match="no uid"):
        choose_ids()


def test_the_account_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.struct_passwd(("coworkd-egress", "x", 990, 991, "", "/", "/usr/sbin/nologin"))
    monkeypatch.setattr(egress_start, "pwd", types.SimpleNamespace(getpwnam=lambda name: account))
    assert choose_ids() == (990, 991)


def test_one_that_answers_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(arguments: list[str]) -> list[str]:
        raise AssertionError(arguments)

    monkeypatch.setattr(egress_start, "egress_command", refuse)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "egress.sock"))
        listener.listen()
        assert ensure_egress(runtime_dir=str(tmp_path), linger_s=None) == str(tmp_path / "egress.sock")
