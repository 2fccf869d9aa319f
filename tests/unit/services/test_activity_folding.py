"""`services.activity_folding`: few lines for many changes, and true counts."""

from __future__ import annotations

import random

import pytest

from coworkd.services.activity_folding import Author, Line, Window, fold

BOB = Author("f", "p1")


def _line(change: str, path: bytes, author: Author = BOB, **fields: object) -> Line:
    return Line(author=author, change=change, path=path, **fields)  # type: ignore[arg-type]  # any field


def _told(lines: list[Line]) -> list[tuple[str, bytes, int]]:
    return [(line.change, line.path, line.count) for line in lines]


def test_many_writes_to_one_file_are_one() -> None:
    window = Window()
    for size in range(5):
        window.add(_line("write", b"a", size=size))
    (line,) = window.take(10)
    assert (line.change, line.path, line.count, line.size) == ("write", b"a", 5, 4)
    assert len(window) == 0


def test_what_was_made_and_written_is_one() -> None:
    window = Window()
    for change, size in (("create", -1), ("truncate", 0), ("write", 7), ("attributes", -1)):
        window.add(_line(change, b"a", size=size))
    (line,) = window.take(10)
    assert (line.change, line.count, line.size) == ("create", 1, 7)


def test_who_is_certain_of_one_change_is_certain_of_those_like_it() -> None:
    window = Window()
    window.add(_line("write", b"a", inferred=True))
    window.add(_line("write", b"a"))
    window.add(_line("write", b"b", inferred=True))
    assert [line.inferred for line in window.take(10)] == [False, True]


def test_changes_of_others_and_other_changes_are_kept_apart() -> None:
    window = Window()
    window.add(_line("create", b"a"))
    window.add(_line("write", b"a", Author("f", "p2"), size=1))
    window.add(_line("write", b"a", Author("g", "p1"), size=1))
    window.add(_line("delete", b"a"))
    window.add(_line("rename", b"x", to=b"y"))
    window.add(_line("rename", b"x", to=b"z"))
    assert len(window.take(10)) == 6


def test_past_the_room_a_directory_is_one_line() -> None:
    lines = [_line("create", b"d/%d" % number) for number in range(9)] + [_line("delete", b"alone")]
    assert _told(fold(lines, 2)) == [("many", b"d", 9), ("delete", b"alone", 1)]


def test_further_past_it_directories_are_folded_from_below() -> None:
    lines = [_line("create", b"n/%d/x/%d" % (package, number)) for package in range(20) for number in range(5)]
    assert _told(fold(lines, 30))[0] == ("many", b"n/0/x", 5)
    assert len(fold(lines, 20)) == 20
    assert _told(fold(lines, 19)) == [("many", b"n", 100)]


def test_authors_are_never_folded_together() -> None:
    lines = [_line("create", b"%d" % number, Author("f", f"p{number % 3}")) for number in range(30)]
    assert sorted(line.count for line in fold(lines, 1)) == [10, 10, 10]


def test_lost_ones_stay_lost() -> None:
    lines = [_line("lost", b"", count=3), _line("lost", b"", count=4)]
    assert _told(fold(lines, 1)) == [("lost", b"", 7)]


@pytest.mark.parametrize("room", [1, 5, 40, 1000])
def test_however_they_are_folded_every_change_is_counted_and_the_room_is_kept(room: int) -> None:
    dice = random.Random(room)
    lines = [
        _line(
            "create",
            b"/".join(b"%d" % dice.randrange(4) for _ in range(dice.randrange(1, 9))),
            count=dice.randrange(1, 5),
        )
        for _ in range(500)
    ]
    total = sum(line.count for line in lines)
    folded = fold(lines, room)
    assert len(folded) <= room
    assert sum(line.count for line in folded) == total
