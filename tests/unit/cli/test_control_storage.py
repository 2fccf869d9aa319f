"""`coworkctl storage …`."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.cli.control_storage import shown_bytes
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

USAGE: dict[str, Any] = {
    "kind": "loop",
    "state": "ok",
    "reason": None,
    "path": "/sessions",
    "device": "/dev/loop3",
    "size_bytes": 10 << 30,
    "used_bytes": 9 << 30,
    "free_bytes": 1 << 29,
    "reserved_bytes": 1 << 29,
    "inodes": 1000,
    "inodes_free": 400,
    "quota": "watched",
    "pressure": 90,
}


def test_usage_shows_what_is_left(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["storage.usage"] = lambda _: USAGE
    assert ctl("storage", "usage") == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert (lines["state"], lines["free"], lines["files"]) == ("ok", "512 MiB", "600 of 1000")
    assert lines["pressure"] == "over 90 %"


def test_usage_of_a_disk_that_cannot_be_used_ends_with_1_and_says_why(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["storage.usage"] = lambda _: {**USAGE, "state": "absent", "reason": "two are \x1b[2J blank"}
    assert ctl("storage", "usage") == 1
    said = capsys.readouterr().out
    assert "absent: two are" in said
    assert "\x1b" not in said


def test_trim_says_how_much(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["storage.trim"] = lambda _: {"trimmed_bytes": 3 << 20}
    assert ctl("storage", "trim") == 0
    assert "3 MiB" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "sent"), [((), {}), (("20G",), {"size": 20 << 30}), (("4096",), {"size": 4096})])
def test_grow_sends_the_size_that_was_said(
    ctl: Ctl, guest: FakeGuest, words: tuple[str, ...], sent: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["storage.grow"] = lambda _: {"before_bytes": 1 << 30, "after_bytes": 2 << 30}
    assert ctl("storage", "grow", *words) == 0
    assert guest.called("storage.grow") == [sent]
    assert capsys.readouterr().out == "grown from 1 GiB to 2 GiB\n"


def test_grow_says_when_there_is_nothing_to_grow_into(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["storage.grow"] = lambda _: {"before_bytes": 1 << 30, "after_bytes": 1 << 30}
    assert ctl("storage", "grow") == 0
    assert "as large as its device" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (1000 << 20, "1000 MiB"), (5 << 40, "5 TiB")],
)
def test_bytes_are_shown_with_three_digits(amount: int, text: str) -> None:
    assert shown_bytes(amount) == text
