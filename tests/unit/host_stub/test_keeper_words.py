"""Troubles on the wire and back."""

from __future__ import annotations

from coworkd.model.errors import InvalidParams
from coworkd.wire.fault import compose_fault, parse_fault
from host_stub.keeper_words import encode_trouble, fault_of, trouble_of
from host_stub.words import Trouble

TROUBLE = Trouble("no_space", "the disk is full", remedy="make room", details={"serial": ["a", "b"]})


def test_a_trouble_comes_back_as_itself() -> None:
    back = trouble_of(parse_fault(compose_fault(fault_of(TROUBLE))))
    assert (back.code, back.message, back.remedy, back.details) == (
        "no_space",
        "the disk is full",
        "make room",
        {"serial": ["a", "b"]},
    )


def test_any_other_error_is_a_trouble_too() -> None:
    back = trouble_of(InvalidParams("parameter after: expected int", key="after"))
    assert (back.code, back.message) == ("keeper_failed", "parameter after: expected int")


def test_what_is_encoded_says_all() -> None:
    assert encode_trouble(TROUBLE) == {
        "code": "no_space",
        "message": "the disk is full",
        "remedy": "make room",
        "details": {"serial": ["a", "b"]},
    }
