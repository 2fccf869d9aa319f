"""Typed readers of one object."""

from __future__ import annotations

import pytest

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.located_json import parse_json
from coworkd.seccomp.oci_fields import Fields, read_action
from coworkd.seccomp.rules import Action, Kind

KNOWN = ("text", "number", "list", "action", "errnoRet", "errno")


def fields(text: str) -> Fields:
    return Fields("f", parse_json(text.encode(), "f"), "a thing", KNOWN)


def test_fields_read_what_they_promise() -> None:
    read = fields('{"text": "a", "number": 5, "list": ["x"]}')
    assert (read.text("text"), read.number("number"), read.texts("list")) == ("a", 5, [("x", 1)])


def test_fields_missing_and_null_are_the_same() -> None:
    read = fields('{"text": null}')
    assert (read.text("text"), read.text("number"), read.array("list"), "text" in read) == (None, None, [], False)


@pytest.mark.parametrize("value", ["true", "1.0", "-1", '"1"', "[]", "18446744073709551616"])
def test_fields_number_is_a_whole_number(value: str) -> None:
    with pytest.raises(InvalidParams, match="whole number"):
        fields(f'{{"number": {value}}}').number("number")


def test_fields_refuse_unknown_keys_with_the_line() -> None:
    with pytest.raises(InvalidParams, match="f:2: a thing has no key 'txt'; did you mean 'text'"):
        fields('{\n"txt": 1}')


def test_fields_refuse_what_is_no_object() -> None:
    with pytest.raises(InvalidParams, match="must be an object"):
        fields("[]")


def test_read_action_ignores_the_errno_of_other_actions() -> None:
    assert read_action(fields('{"action": "SCMP_ACT_LOG", "errnoRet": 5}'), "action", "errnoRet", "errno") == Action(
        Kind.LOG
    )


def test_read_action_takes_equal_name_and_number() -> None:
    read = fields('{"action": "SCMP_ACT_ERRNO", "errnoRet": 38, "errno": "ENOSYS"}')
    assert read_action(read, "action", "errnoRet", "errno") == Action(Kind.ERRNO, 38)
