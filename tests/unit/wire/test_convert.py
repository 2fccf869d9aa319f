from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coworkd.model import calls
from coworkd.model.errors import InvalidParams
from coworkd.model.names import OsBytes
from coworkd.model.process import ProcessInfo
from coworkd.wire.convert import compose_answer, nearest, parse_params, read_answer
from tests.unit.call_count import count_calls

PARAMS = [
    each
    for each in vars(calls).values()
    if isinstance(each, type) and issubclass(each, calls.Params) and each not in (calls.Params, calls.Mutating)
]
RUN: dict[str, Any] = {"session": "s", "argv": ["echo", b"\xff"]}


def refused(params: dict[str, Any], kind: type[msgspec.Struct]) -> InvalidParams:
    with pytest.raises(InvalidParams) as caught:
        parse_params(params, kind)
    return caught.value


@pytest.mark.parametrize("kind", PARAMS, ids=lambda kind: kind.__name__)
def test_every_call_refuses_an_unknown_parameter(kind: type[calls.Params]) -> None:
    assert refused({"surely_not_there": 1}, kind).details["key"] == "surely_not_there"


@pytest.mark.parametrize("kind", PARAMS, ids=lambda kind: kind.__name__)
def test_every_required_parameter_is_missed_by_name(kind: type[calls.Params]) -> None:
    required = [field.name for field in msgspec.structs.fields(kind) if field.required]
    if required:
        assert refused({}, kind).details["key"] == required[0]
    else:
        assert parse_params({}, kind) == kind()


def test_nothing_is_called_for_each_usual_parameter() -> None:
    few, many = (
        {"session": "s", "argv": [], "env": {str(n): "x" for n in range(count)}} for count in (1, 100)
    )  # fmt: skip
    assert count_calls(lambda: parse_params(many, calls.ProcessRun)) == count_calls(
        lambda: parse_params(few, calls.ProcessRun)
    )


def test_arguments_are_text_or_bin() -> None:
    parsed = parse_params(RUN | {"input": b"\0\xff", "timeout_s": 1}, calls.ProcessRun)
    assert parsed.argv == [OsBytes(b"echo"), OsBytes(b"\xff")]
    assert (parsed.input, parsed.timeout_s) == (b"\0\xff", 1.0)


@pytest.mark.parametrize(
    ("params", "kind", "key", "words"),
    [
        (RUN | {"limits": {"memory": 3}}, calls.ProcessRun, "limits.memory", "did you mean 'memory_max'"),
        (RUN | {"Timeout_S": 3}, calls.ProcessRun, "Timeout_S", "did you mean 'timeout_s'"),
        (RUN | {"qqq": 3}, calls.ProcessRun, "qqq", "it takes request_id, session"),
        (RUN | {"argv": ["a", 3]}, calls.ProcessRun, "argv[1]", "expected `str | bytes`, got `int`"),
        (RUN | {"argv": ["a", "b\0"]}, calls.ProcessRun, "argv[1]", "NUL"),
        (RUN | {"argv": ["a", b"b\0"]}, calls.ProcessRun, "argv[1]", "NUL"),
        (RUN | {"env": {"A": "\0"}}, calls.ProcessRun, "env.A", "NUL"),
        (RUN | {"env": {"A\0B": ""}}, calls.ProcessRun, "env.A", "NUL"),
        (RUN | {"session": "a\0"}, calls.ProcessRun, "session", "NUL"),
        (RUN | {"timeout_s": float("nan")}, calls.ProcessRun, "timeout_s", "finite"),
        (RUN | {"timeout_s": float("inf")}, calls.ProcessRun, "timeout_s", "finite"),
        (RUN | {"timeout_s": True}, calls.ProcessRun, "timeout_s", "got `bool`"),
        (RUN | {"input": "text"}, calls.ProcessRun, "input", "expected `bytes | null`"),
        ({"process": "p", "offset": True, "data": b""}, calls.WriteStdin, "offset", "got `bool`"),
        ({"process": "p", "offset": 1.0, "data": b""}, calls.WriteStdin, "offset", "got `float`"),
        ({"name": "n", "ephemeral": 1}, calls.SessionEnsure, "ephemeral", "got `int`"),
        ({"name": "n", "resume": "sometimes"}, calls.SessionEnsure, "resume", "'auto', 'existing', 'new'"),
        (
            {"name": "n", "folders": [{"name": "f", "source": "/s", "moder": "ro"}]},
            calls.SessionEnsure,
            "folders[0].moder",
            "did you mean 'mode'",
        ),
        (
            {"name": "n", "folders": [{"name": "f", "source": "/s", "mode": "rx"}]},
            calls.SessionEnsure,
            "folders[0].mode",
            "'ro', 'rw', 'rwd', 'staged'",
        ),
        ({"name": "n", "folders": [{"name": "f"}]}, calls.SessionEnsure, "folders[0].source", "missing"),
        ({"x": 1}, calls.NoParams, "x", "it takes none"),
    ],
)
def test_refusals_name_the_key_and_the_remedy(
    params: dict[str, Any], kind: type[msgspec.Struct], key: str, words: str
) -> None:
    error = refused(params, kind)
    assert error.details["key"] == key
    assert words in error.message


def test_answers_become_maps_and_come_back() -> None:
    info = ProcessInfo(
        process="p",
        session="s",
        argv=(OsBytes(b"a"), OsBytes(b"\xff")),
        state="running",
        pid=1,
        started_at=1.0,
        streams={"stdout": (0, 1)},
    )
    composed = compose_answer({"processes": [info]})
    assert composed["processes"][0]["argv"] == ("a", b"\xff")
    assert read_answer(composed["processes"][0] | {"new_field": 1}, ProcessInfo) == info


def test_payloads_are_not_copied_into_answers() -> None:
    data = b"x" * 100_000
    assert compose_answer({"stdout": data})["stdout"] is data


def test_unknown_types_in_answers_are_errors() -> None:
    with pytest.raises(NotImplementedError):
        compose_answer({"odd": object()})


@pytest.mark.parametrize(
    ("word", "expected"), [("proces.run", "process.run"), ("PROCESS.RUN", "process.run"), ("zz", None), ("", None)]
)
def test_nearest_finds_what_was_meant(word: str, expected: str | None) -> None:
    assert nearest(word, ["process.run", "ping"]) == expected
