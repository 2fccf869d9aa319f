"""What a command leaves of a terminal."""

from __future__ import annotations

import pytest

from coworkd.cli.control_screen import Replay, Screen, screenful


def after(data: bytes, size: int = 1000) -> Screen:
    screen = Screen()
    for start in range(0, len(data), size):
        screen.feed(data[start : start + size])
    return screen


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("said", "undone"),
    [
        (b"plain\r\n", b""),
        (b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"),
        (b"\x1b[?1049h\x1b[?25l text \x1b[?25h\x1b[?1049l", b""),
        (b"\x1b[?1000;1006;2004h", b"\x1b[?2004l\x1b[?1006l\x1b[?1000l"),
        (b"\x1b[?7l", b"\x1b[?7h"),
        (b"\x1b[31mred", b"\x1b[m"),
        (b"\x1b[1;38;5;9mred\x1b[0m", b""),
        (b"\x1b[31mred\x1b[m", b""),
        (b"\x1b[31;0m", b""),
        (b"\x1b=", b"\x1b>"),
        (b"\x1b=\x1b>", b""),
        (b"\x1b[4 q", b"\x1b[0 q"),
        (b"\x1b[4 q\x1b[ q", b""),
        (b"\x1b[>4;2m", b"\x1b[>4m"),
        (b"\x1b[>4;2m\x1b[>4m", b""),
        (b"\x1b[>1u\x1b[>5u", b"\x1b[<2u"),
        (b"\x1b[>1u\x1b[>5u\x1b[<u\x1b[<3u", b""),
        (b"\x1b[?1049h\x1b[?25l\x1b[31m\x1bc", b""),
        (b"\x0e\x1b(0lqqk", b"\x0f\x1b(B"),
        (b"\x0elqk\x0f \x1b(0x\x1b(B", b""),
        (b"\x1b[1;23r", b"\x1b7\x1b[r\x1b8"),
        (b"\x1b[1;23r\x1b[r", b""),
        (b"\x1b[4h\x1b[?5h\x1b[?6h", b"\x1b[?6l\x1b[?5l\x1b[4l"),
        (b"\x1b[4h\x1b[4l", b""),
        (b"\x1b]0;a title that never", b"\x1b\\"),
        (b"\x1b]0;a title\x1b\\", b""),
        (b"\x1bPq#0\x1b[31m", b"\x1b[m"),
        (b"\x1b]0;a title\x1bc", b""),
        (b"\x1b[?9999h\x1b[2J\x1b]0;title\x07", b""),
    ],
)
def test_exactly_what_was_changed_is_undone(said: bytes, undone: bytes, size: int) -> None:
    assert after(said, size).undo() == undone


def test_a_sequence_that_never_ends_is_not_kept() -> None:
    screen = after(b"\x1b[" + b"1;" * 100_000)
    assert len(screen._rest) < 100


def test_a_fresh_terminal_is_made_like_the_old_one() -> None:
    said = b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[?2004l\x1b[2 q\x1b=\x1b[>4;1m\x1b[>3u"
    assert after(said).redo() == b"\x1b[?1049h\x1b[?25l\x1b[2 q\x1b=\x1b[>4;1m\x1b[>3u"
    assert after(after(said).redo()).undo() == after(said).undo()


def test_a_screenful_is_the_last_lines() -> None:
    data = b"".join(b"%d\n" % number for number in range(100))
    assert screenful(data, 3) == b"98\n99\n"
    assert screenful(data + b"$ ", 2) == b"99\n$ "
    assert screenful(b"short", 24) == b"short"
    assert screenful(b"", 24) == b""


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_replay_is_a_screenful_and_then_all(size: int) -> None:
    old, new = b"".join(b"%d\r\n" % number for number in range(50)) + b"$ ", b"new\x1b[31m"
    replay = Replay(10 + len(old), 2)
    data = old + new
    shown = [replay.feed(10 + start, data[start : start + size]) for start in range(0, len(data), size)]
    assert b"".join(shown) == b"49\r\n$ " + new
    assert replay.finish() == b""


def test_a_replay_of_a_full_screen_program_is_its_modes() -> None:
    old = b"$ vim\r\n\x1b[?1049h\x1b[?2004h lots\r\nof\r\ntext"
    assert Replay(len(old), 24).feed(0, old) == b"\x1b[?1049h\x1b[?2004h\x1b[2J\x1b[H"


def test_a_replay_of_nothing_holds_nothing_back() -> None:
    replay = Replay(7, 24)
    assert replay.feed(7, b"x") == b"x"


def test_a_replay_ends_where_bytes_were_dropped_meanwhile() -> None:
    replay = Replay(50, 24)
    assert replay.feed(0, b"old\n") == b""
    assert replay.feed(60, b"new") == b"old\nnew"


def test_a_replay_that_ends_early_shows_what_came() -> None:
    replay = Replay(100, 24)
    assert replay.feed(0, b"some") == b""
    assert replay.finish() == b"some"
    assert replay.finish() == b""
