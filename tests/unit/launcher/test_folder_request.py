"""Which words of a folder are taken."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.launcher.folder_request import find_name_problem, find_problem
from coworkd.model.launch import MountFolder


def request(**fields: Any) -> MountFolder:
    known: dict[str, Any] = {"session": "bob", "name": "work", "root": b"/srv", "source": b"a/b", "mode": "rw"}
    return MountFolder(id=0, **{**known, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"source": b"."},
        {"root": b"/"},
        {"source": b"\xff\n "},
        {"name": "My Files.d"},
        {"mode": "staged", "stage": b"/s/stage"},
        {"journal": b"/s/journal"},
        {"apart_from": (b"/state",)},
        {"deadline_s": 60.0},
    ],
)
def test_plain_words_are_taken(fields: dict[str, Any]) -> None:
    assert find_problem(request(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": ".."}, "name"),
        ({"root": b"srv"}, "root"),
        ({"root": b"/srv/../etc"}, "root"),
        ({"source": b""}, "source"),
        ({"source": b"/etc"}, "source"),
        ({"source": b"a/../../etc"}, "source"),
        ({"source": b"a//b"}, "source"),
        ({"source": b"a\0b"}, "source"),
        ({"source": b"./a"}, "source"),
        ({"mode": "staged"}, "stage"),
        ({"mode": "staged", "stage": b"stage"}, "stage"),
        ({"journal": b"journal"}, "journal"),
        ({"apart_from": (b"/run", b"state")}, "own"),
        ({"deadline_s": 0.0}, "deadline"),
        ({"deadline_s": 1e9}, "deadline"),
        ({"deadline_s": float("nan")}, "deadline"),
    ],
)
def test_others_are_named(fields: dict[str, Any], word: str) -> None:
    assert word in (find_problem(request(**fields)) or "")


def test_a_name_alone_is_judged_in_the_same_way() -> None:
    assert find_name_problem("work") is None
    assert "a/b" in (find_name_problem("a/b") or "")
