"""What coworkd is asked for a report, and how long it is waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from coworkd.cli.bundle_parts import ANSWER_S, DOCTOR_S, HANGS_S, NAMES_LIMIT, Asking, parts_of_link
from coworkd.client.sync import Client
from coworkd.model.calls import HelloAnswer
from coworkd.model.errors import DeadlineExceeded
from coworkd.services.report_part import collect
from coworkd.services.report_redact import Redactor
from coworkd.services.report_words import Words

Answer = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class FakeClient(Client):
    """Answers by a function, and remembers how long it was given."""

    hello = HelloAnswer(protocol=1, version="1.0", boot_id="b", features=(), stages=(), degraded={})

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[str, float | None]] = []
        self.params: list[Mapping[str, Any]] = []
        self._answer = answer

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        self.asked.append((method, timeout_s))
        self.params.append(params or {})
        return self._answer(method, params or {})


def test_whoever_has_not_answered_once_is_given_little_time() -> None:
    def answer(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if method == "b":
            raise DeadlineExceeded("b was not answered")
        return {}

    client = FakeClient(answer)
    asking = Asking(client)
    asking.ask("a")
    with pytest.raises(DeadlineExceeded):
        asking.ask("b")
    asking.ask("c", within_s=DOCTOR_S)
    assert [waited for _, waited in client.asked] == [ANSWER_S, ANSWER_S, HANGS_S]


def test_sessions_are_asked_for_first_so_that_their_names_are_known_everywhere() -> None:
    def answer(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if method == "session.list":
            return {"sessions": [{"name": "disk"}]}
        return {"lines": [{"level": "info", "component": "session:disk", "message": "disk is away"}], "records": []}

    redactor = Redactor(Words({"disk", "is", "away"}), salt=b"s")
    found = {part.file: collect(part, redactor)[0] for part in parts_of_link(Asking(FakeClient(answer)))}
    name = redactor.pseudonym("disk")
    assert found["sessions.json"] == [{"name": name}]
    assert found["logs.json"]["lines"] == [{"level": "info", "component": "session", "message": f"{name} is away"}]


def test_each_call_is_one_that_only_looks() -> None:
    client = FakeClient(lambda method, params: {"sessions": [], "processes": [], "records": [], "findings": []})
    for part in parts_of_link(Asking(client)):
        part.collect()
    assert {method for method, _ in client.asked} == {
        *("session.list", "process.list", "audit.verify", "audit.tail", "info", "stats", "boot_time"),
        *("egress.status", "storage.usage", "update.status", "logs", "doctor"),
    }


def test_a_report_is_asked_for_by_the_same_pseudonyms_and_as_many_as_fit() -> None:
    parts = [{"file": "units.json", "source": "x", "json": "{}"}, {"file": "../x.json", "source": "x", "json": "{}"}]
    client = FakeClient(lambda method, params: {"parts": parts})
    redactor = Redactor(Words(()), salt=b"salt", with_names=True)
    for number in range(NAMES_LIMIT + 5):
        redactor.pseudonym(f"s{number}")
    (told,) = Asking(client).report(redactor)
    assert (told.file, told.json) == ("units.json", "{}")
    assert client.asked == [("report", DOCTOR_S)]
    assert len(client.params[0]["names"]) == NAMES_LIMIT
    assert (client.params[0]["salt"], client.params[0]["with_names"]) == (b"salt", True)
