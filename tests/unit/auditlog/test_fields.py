"""Fields: types are held, sizes are bounded, cuts are told."""

from __future__ import annotations

import hashlib
import signal

import pytest

from coworkd.auditlog import fields
from coworkd.model.process import Exit


def test_text_takes_bytes_that_are_text() -> None:
    assert fields.text(b"gr\xc3\xbcn") == ("grün", None)


def test_text_keeps_other_bytes_exactly() -> None:
    assert fields.text(b"\xff\x00") == ({"b64": "/wA="}, None)


def test_text_cuts_at_a_whole_character_and_tells_it() -> None:
    whole = "ü" * fields.TEXT_LIMIT_BYTES
    kept, cut = fields.text("x" + whole)
    assert len(kept.encode()) == fields.TEXT_LIMIT_BYTES - 1
    assert kept == "x" + whole[: len(kept) - 1]
    assert cut == {"bytes": 2 * len(whole) + 1, "sha256": hashlib.sha256(("x" + whole).encode()).hexdigest()}


def test_texts_cut_by_bytes_and_tell_the_whole() -> None:
    items = [b"a" * 10_000, b"b" * 10_000]
    kept, cut = fields.texts(items)
    assert kept == ["a" * 10_000]
    assert cut == {
        "items": 2,
        "bytes": 20_000,
        "sha256": hashlib.sha256(b"".join(item + b"\0" for item in items)).hexdigest(),
    }


def test_texts_cut_by_count() -> None:
    kept, cut = fields.texts(["x"] * 1000)
    assert len(kept) == fields.LIST_LIMIT_ITEMS
    assert cut is not None
    assert cut["items"] == 1000


@pytest.mark.parametrize("value", ["one", b"one", 3, [3], {"a": "b"}])
def test_texts_refuse_what_is_no_list_of_texts(value: object) -> None:
    with pytest.raises(fields.Refused):
        fields.texts(value)


@pytest.mark.parametrize("value", [True, 1.5, "1", 2**64])
def test_integer_refuses_others(value: object) -> None:
    with pytest.raises(fields.Refused):
        fields.integer(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1.5"])
def test_number_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(fields.Refused):
        fields.number(value)


def test_flag_refuses_integers() -> None:
    with pytest.raises(fields.Refused):
        fields.flag(1)


@pytest.mark.parametrize("value", ["TERM", 15])
def test_signal_is_a_name_or_a_number(value: object) -> None:
    assert fields.signal(value) == (value, None)


def test_map_takes_a_struct_and_leaves_none_out() -> None:
    rule = fields.map_of(*Exit.__struct_fields__)
    assert rule(Exit(code=0, signal=None, reason="exited")) == (
        {"code": 0, "reason": "exited", "inferred": False},
        None,
    )


def test_map_refuses_a_key_that_is_not_listed() -> None:
    with pytest.raises(fields.Refused, match="TOKEN"):
        fields.map_of("code")({"TOKEN": "s3cret"})


def test_map_keeps_every_number_that_json_can_say() -> None:
    said = {"least": -(2**63), "most": 2**64 - 1, "huge": 1e300, "flag": True, "signal": signal.SIGKILL}
    assert fields.map_of(*said)(said) == (said, None)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, float("nan"), float("-inf")])
def test_map_refuses_numbers_that_json_cannot_say(value: float) -> None:
    with pytest.raises(fields.Refused):
        fields.map_of("code")({"code": value})


@pytest.mark.parametrize("value", [b"secret", [1], {"a": 1}])
def test_map_refuses_nested_values(value: object) -> None:
    with pytest.raises(fields.Refused):
        fields.map_of("code")({"code": value})


def test_maps_cut_and_tell() -> None:
    kept, cut = fields.maps_of("name")([{"name": "n" * 100}] * 1000)
    assert 0 < len(kept) <= fields.LIST_LIMIT_ITEMS
    assert cut is not None
    assert cut["items"] == 1000


@pytest.mark.parametrize("value", ["x", {"name": "x"}, 4])
def test_maps_refuse_what_is_no_list(value: object) -> None:
    with pytest.raises(fields.Refused):
        fields.maps_of("name")(value)
