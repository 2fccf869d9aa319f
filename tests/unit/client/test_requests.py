"""Plain values → parameters."""

from __future__ import annotations

import os

import pytest

from coworkd.client.requests import os_bytes, run_request, start_request
from coworkd.model.errors import InvalidParams
from coworkd.wire.convert import compose_answer


def test_text_and_bytes_arrive_as_they_were() -> None:
    odd = os.fsdecode(b"\xff\xfe")
    assert compose_answer(run_request("s", ["a", b"b", odd, b"\x80"]))["argv"] == ["a", "b", b"\xff\xfe", b"\x80"]
    assert os_bytes("é") == "é".encode()


def test_what_was_not_given_does_not_travel() -> None:
    assert compose_answer(run_request("s", ["true"])) == {"session": "s", "argv": ["true"]}
    assert compose_answer(start_request("s", ["true"])) == {"session": "s", "argv": ["true"]}


def test_everything_given_travels() -> None:
    composed = compose_answer(
        start_request("s", ["sh"], env={"A": "1"}, cwd=b"/x", stdin=True, tty=(24, 80), timeout_s=1.5, attach=False)
    )
    assert composed == {
        "session": "s",
        "argv": ["sh"],
        "env": {"A": "1"},
        "cwd": "/x",
        "stdin": "pipe",
        "tty": {"rows": 24, "cols": 80},
        "timeout_s": 1.5,
        "attach": False,
    }


def test_a_lone_string_is_no_argv() -> None:
    with pytest.raises(InvalidParams, match="list of arguments"):
        run_request("s", "echo hi")
