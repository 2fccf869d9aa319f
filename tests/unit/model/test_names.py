from __future__ import annotations

import pytest

from coworkd.model.errors import InvalidParams
from coworkd.model.names import (
    RESERVED_NAMES,
    OsBytes,
    parse_folder_name,
    parse_process_id,
    parse_session_name,
)


@pytest.mark.parametrize("text", ["a", "bob", "a-1", "x" * 32, "a--b-"])
def test_session_names_that_can_be_used(text: str) -> None:
    assert parse_session_name(text) == text


@pytest.mark.parametrize("text", ["", "A", "1a", "-a", "x" * 33, "a_b", "a.b", "a/b", "..", "a\n", "ä", "a b", "a\0"])
def test_session_names_that_cannot(text: str) -> None:
    with pytest.raises(InvalidParams, match="a-z, 0-9") as caught:
        parse_session_name(text)
    assert caught.value.details["key"] == "session"


@pytest.mark.parametrize("text", sorted(RESERVED_NAMES))
def test_names_of_the_system_are_never_sessions(text: str) -> None:
    with pytest.raises(InvalidParams, match="belongs to the system"):
        parse_session_name(text)


@pytest.mark.parametrize("text", ["src", "My Folder", ".config", "a.b-c_d", "x" * 64, "..."])
def test_folder_names_that_can_be_used(text: str) -> None:
    assert parse_folder_name(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "-a", " a", "_a", "x" * 65, "a\n", "a\0", "ä", "\\"])
def test_folder_names_that_cannot(text: str) -> None:
    with pytest.raises(InvalidParams, match="one path component"):
        parse_folder_name(text)


@pytest.mark.parametrize("text", ["p1", "A.b-c_d", "0", "x" * 64])
def test_process_ids_that_can_be_used(text: str) -> None:
    assert parse_process_id(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "-a", "a/b", "x" * 65, "a b", "a\n"])
def test_process_ids_that_cannot(text: str) -> None:
    with pytest.raises(InvalidParams, match="process id"):
        parse_process_id(text)


@pytest.mark.parametrize(("wire", "data"), [("ä", "ä".encode()), (b"\xff", b"\xff"), (b"a", b"a"), ("", b"")])
def test_os_bytes_come_as_text_or_bin(wire: str | bytes, data: bytes) -> None:
    assert OsBytes.from_wire(wire) == data


def test_os_bytes_travel_as_text_where_they_are() -> None:
    assert [OsBytes(b"a").to_wire(), OsBytes(b"\xff").to_wire()] == ["a", b"\xff"]


@pytest.mark.parametrize("value", [None, 1, ["a"], bytearray(b"a")])
def test_os_bytes_are_nothing_else(value: object) -> None:
    with pytest.raises(TypeError, match="Expected `str"):
        OsBytes.from_wire(value)
