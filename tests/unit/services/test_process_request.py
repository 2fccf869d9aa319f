"""`services.process_request`: what cannot be meant is refused with its key."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from coworkd.model.calls import ProcessRun, ProcessStart
from coworkd.model.errors import InvalidParams
from coworkd.model.names import OsBytes
from coworkd.model.process import TtySize
from coworkd.services.process_request import (
    parse_run,
    parse_seconds,
    parse_signal,
    parse_start,
)


def start(**fields: Any) -> ProcessStart:
    return ProcessStart(**{"session": "work", "argv": [OsBytes(b"cat")], **fields})


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"argv": []}, "argv"),
        ({"argv": [OsBytes(b"")]}, "argv"),
        ({"argv": [OsBytes(b"cat"), OsBytes(b"a\0b")]}, "argv[1]"),
        ({"env": {"": "x"}}, "env"),
        ({"env": {"A=B": "x"}}, "env"),
        ({"env": {"A\0": "x"}}, "env"),
        ({"env": {"A": "x\0"}}, "env"),
        ({"cwd": OsBytes(b"relative")}, "cwd"),
        ({"cwd": OsBytes(b"/a\0")}, "cwd"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": -1.0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"id": "../x"}, "id"),
        ({"id": "run.abc"}, "id"),
        ({"tty": TtySize(rows=0, cols=80)}, "rows"),
    ],
)
def test_parse_start_refuses_what_cannot_be_meant(fields: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        parse_start(start(**fields))
    assert caught.value.details["key"] == key


def test_parse_start_keeps_bytes_as_they_are() -> None:
    request = parse_start(start(argv=[OsBytes(b"\xff"), OsBytes(b"")], cwd=OsBytes(b"/\xfe"), env={"A": ""}))
    spec = request.spec("one")
    assert (spec.process, spec.argv, spec.cwd, spec.env) == ("one", (b"\xff", b""), b"/\xfe", {"A": ""})


@pytest.mark.parametrize(
    ("stdin", "tty", "piped"),
    [("none", None, False), ("pipe", None, True), ("pipe", TtySize(rows=1, cols=1), False)],
)
def test_parse_start_gives_a_terminal_no_pipe(stdin: str, tty: TtySize | None, piped: bool) -> None:
    assert parse_start(start(stdin=stdin, tty=tty)).stdin is piped


@pytest.mark.parametrize(("given", "piped"), [(None, False), (b"", False), (b"x", True)])
def test_parse_run_has_a_stdin_only_for_input(given: bytes | None, piped: bool) -> None:
    request = parse_run(ProcessRun(session="work", argv=[OsBytes(b"cat")], input=given))
    assert request.stdin is piped
    assert request.one_shot


@pytest.mark.parametrize("value", [15, "TERM", "SIGTERM", "sigterm", "15"])
def test_parse_signal_knows_names_and_numbers(value: int | str) -> None:
    assert parse_signal(value) == signal.SIGTERM


@pytest.mark.parametrize(("value", "number"), [("RTMIN+2", signal.SIGRTMIN + 2), ("POLL", signal.SIGPOLL), (64, 64)])
def test_parse_signal_knows_real_time_signals_and_aliases(value: int | str, number: int) -> None:
    assert parse_signal(value) == number


@pytest.mark.parametrize("value", [0, -1, 65, 33, "", "NOPE", "SIG"])
def test_parse_signal_refuses_what_is_none(value: int | str) -> None:
    with pytest.raises(InvalidParams):
        parse_signal(value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_parse_seconds_refuses_what_is_no_span(value: float) -> None:
    with pytest.raises(InvalidParams) as caught:
        parse_seconds(value, "grace_s")
    assert caught.value.details["key"] == "grace_s"
