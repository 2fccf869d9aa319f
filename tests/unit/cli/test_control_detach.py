"""Keys that detach: written, and found among what is typed."""

from __future__ import annotations

import pytest

from coworkd.cli.control_detach import DetachKeys, choose_detach_keys, parse_detach_keys
from coworkd.model.errors import InvalidParams


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("Ctrl-P", b"\x10"),
        ("ctrl-]", b"\x1d"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1e\x1f"),
        ("~,.", b"~."),
        ("none", b""),
        ("", b""),
    ],
)
def test_keys_are_written_as_docker_writes_them(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrlp", "ü", "a,", ",", "alt-x", "a,b,c,d,e,f,g,h,i", " "])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams, match="detach-keys"):
        parse_detach_keys(text)


def test_the_option_comes_before_the_variable_and_that_before_the_default() -> None:
    assert choose_detach_keys("a", {"COWORKD_DETACH_KEYS": "b"}) == b"a"
    assert choose_detach_keys(None, {"COWORKD_DETACH_KEYS": "none"}) == b""
    assert choose_detach_keys(None, {"COWORKD_DETACH_KEYS": ""}) == choose_detach_keys(None, {}) == b"\x10\x11"


def fed(keys: bytes, *pieces: bytes) -> tuple[bytes, bool]:
    scan, passed = DetachKeys(keys), b""
    for piece in pieces:
        more, found = scan.feed(piece)
        passed += more
        if found:
            return passed, True
    return passed + scan.flush(), False


@pytest.mark.parametrize("cut", range(7))
def test_keys_are_found_wherever_they_are_cut(cut: int) -> None:
    typed = b"ls\r\x10\x11x"
    assert fed(b"\x10\x11", typed[:cut], typed[cut:]) == (b"ls\r", True)


@pytest.mark.parametrize(
    "typed", [b"\x10", b"\x10\x10", b"\x11\x10", b"\x10a\x11", bytes(range(256))[:16], b"\x11\x11\x10"]
)
def test_what_only_begins_like_the_keys_is_passed_on_whole(typed: bytes) -> None:
    assert fed(b"\x10\x11", *(bytes([key]) for key in typed)) == (typed, False)


def test_keys_that_begin_anew_within_themselves_are_found() -> None:
    assert fed(b"aab", b"a", b"a", b"a", b"b") == (b"a", True)


def test_without_keys_nothing_is_held_back() -> None:
    scan = DetachKeys(b"")
    assert scan.feed(b"\x10\x11") == (b"\x10\x11", False)
    assert not scan.holding
