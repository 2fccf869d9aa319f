"""`policy show` asks a coworkd where there is one, and reads files else."""

from __future__ import annotations

import argparse

import pytest

from coworkd.cli import control_policy
from coworkd.cli.control_policy import with_link
from coworkd.client.sync import Client
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest


def arguments(command: str, layers: list[str] | None = None) -> argparse.Namespace:
    return argparse.Namespace(
        policy_command=command, layers=layers, to="unix:///fake", token_file=None, command="policy"
    )


@pytest.mark.usefixtures("ctl")
def test_show_is_given_a_call_that_works(guest: FakeGuest) -> None:
    guest.answers["policy.show"] = lambda _: {"name": "default"}
    assert with_link(lambda args: len(args.call("policy.show", {})))(arguments("show")) == 1
    assert guest.called("policy.show") == [{}]


@pytest.mark.parametrize(("command", "layers"), [("check", None), ("show", ["/etc/p"])])
def test_files_are_read_without_a_link(command: str, layers: list[str] | None, guest: FakeGuest) -> None:
    assert with_link(lambda args: 5 if not hasattr(args, "call") else 6)(arguments(command, layers)) == 5
    assert guest.calls == []


def test_without_a_coworkd_show_reads_files(monkeypatch: pytest.MonkeyPatch, ctl: Ctl) -> None:
    monkeypatch.setattr(control_policy, "named_uri", lambda _: None)
    assert with_link(lambda args: 5 if not hasattr(args, "call") else 6)(arguments("show")) == 5
    assert Client is not None
