"""`settings.values`: each parser takes what it says, and refuses the rest in words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from coworkd.settings.values import (
    MAX_SIZE_BYTES,
    BadValue,
    Parser,
    absolute_path,
    choice,
    flag,
    integer,
    listed,
    name,
    number,
    size,
    size_text,
    text,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, 1),
        ("1", 1),
        ("1K", 1024),
        ("2800M", 2800 * 1024 * 1024),
        ("1G", 1 << 30),
        ("2T", 2 << 40),
        (MAX_SIZE_BYTES, MAX_SIZE_BYTES),
    ],
)
def test_size_reads_binary_units(given: object, expected: int) -> None:
    assert size()(given) == expected


@pytest.mark.parametrize(
    "given",
    [0, "0", "0G", -1, "-1", "1.5G", "G", "", "1 G", "9999999T", 2**63, 1.0, True, None, [], {}, "1Gx", "١G", 10**400],
)
def test_size_refuses_what_is_no_size(given: object) -> None:
    with pytest.raises(BadValue):
        size()(given)


@pytest.mark.parametrize(("given", "close"), [("1g", "1G"), ("1 GB", "1G"), ("2800MiB", "2800M"), ("12", None)])
def test_size_offers_the_right_spelling(given: str, close: str | None) -> None:
    with pytest.raises(BadValue) as caught:
        size(100)(given)
    assert caught.value.nearest == close


@pytest.mark.parametrize(
    ("parser", "given", "expected"),
    [
        (integer(1, 9), 9, 9),
        (number(0, 9), 0, 0.0),
        (number(0, 9), 4.5, 4.5),
        (flag, True, True),
        (text, "x", "x"),
        (name, "default", "default"),
        (absolute_path, "/a/b", "/a/b"),
        (choice("dev", "strict"), "dev", "dev"),
        (listed(choice("a", "b")), ["b", "a"], ("b", "a")),
        (listed(name), [], ()),
    ],
)
def test_parser_takes_what_it_is_for(parser: Parser, given: object, expected: Any) -> None:
    result = parser(given)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("parser", "given"),
    [
        (integer(1, 9), 0),
        (integer(1, 9), 10),
        (integer(1, 9), True),
        (integer(1, 9), 1.0),
        (integer(1, 9), "1"),
        (number(0, 9), -0.001),
        (number(0, 9), math.nan),
        (number(0, 9), math.inf),
        (number(0, 9), -math.inf),
        (number(0, 9), False),
        (number(0, 9), 10**400),
        (flag, 1),
        (flag, "true"),
        (text, ""),
        (text, "a\0b"),
        (text, 1),
        (name, "../x"),
        (name, ""),
        (name, "A"),
        (name, "a\n"),
        (name, "a" * 65),
        (absolute_path, "a"),
        (absolute_path, "/a/../b"),
        (choice("dev"), "DEV"),
        (choice("dev"), ["dev"]),
        (listed(name), "a"),
        (listed(name), {"a": 1}),
        (listed(name), ["a", "a"]),
    ],
)
def test_parser_refuses_the_rest(parser: Parser, given: object) -> None:
    with pytest.raises(BadValue):
        parser(given)


def test_listed_names_the_place_of_the_wrong_element() -> None:
    with pytest.raises(BadValue, match="'rwx' is not one of") as caught:
        listed(choice("ro", "rw"))(["ro", "rwx"])
    assert caught.value.place == 1
    assert caught.value.nearest == "rw"


@pytest.mark.parametrize(
    ("amount", "spelling"),
    [(1, "1"), (1023, "1023"), (1536, "1536"), (2048, "2K"), (2800 << 20, "2800M"), (1 << 40, "1T")],
)
def test_size_text_is_a_spelling_size_takes(amount: int, spelling: str) -> None:
    assert size_text(amount) == spelling
    assert size()(spelling) == amount


def test_refusal_shows_long_values_cut() -> None:
    with pytest.raises(BadValue) as caught:
        choice("dev")("x" * 10_000)
    assert len(caught.value.message) < 200


def test_refusal_of_an_endless_number_stays_short() -> None:
    with pytest.raises(BadValue, match="a number with thousands of digits"):
        size()(10**5000)
