from __future__ import annotations

import json

import pytest

from host_stub.qemu.qmp import (
    LINE_LIMIT_BYTES,
    WAITING_LIMIT,
    Answer,
    Greeting,
    QmpConnection,
    QmpError,
    QmpEvent,
    Refusal,
)

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}\r\n'
)


@pytest.fixture
def connection() -> QmpConnection:
    made = QmpConnection()
    made.receive_data(GREETING)
    assert made.next_event() == Greeting(version="7.2.22")
    return made


def test_nothing_is_sent_before_the_greeting() -> None:
    with pytest.raises(QmpError, match="greeted"):
        QmpConnection().send("cont")


def test_command_is_one_line_with_an_id(connection: QmpConnection) -> None:
    number, data = connection.send("device_add", {"driver": "x"})
    assert data.endswith(b"\n")
    assert json.loads(data) == {"execute": "device_add", "id": number, "arguments": {"driver": "x"}}


def test_answers_are_told_apart_by_their_ids(connection: QmpConnection) -> None:
    first, _ = connection.send("a")
    second, _ = connection.send("b")
    connection.receive_data(b'{"return": {"x": 1}, "id": %d}\r\n' % second)
    connection.receive_data(b'{"id": %d, "error": {"class": "GenericError", "desc": "no"}}\r\n' % first)
    assert connection.next_event() == Answer(id=second, value={"x": 1})
    assert connection.next_event() == Refusal(id=first, error_class="GenericError", description="no")
    assert connection.next_event() is None


def test_events_come_in_between_and_in_any_pieces(connection: QmpConnection) -> None:
    number, _ = connection.send("cont")
    lines = (
        b'{"event": "RESUME", "timestamp": {"seconds": 1}}\r\n{"return": {}, "id": %d}\r\n{"event": "STOP", "data": 3}\r\n'
        % number
    )
    for index in range(len(lines)):
        connection.receive_data(lines[index : index + 1])
    assert connection.next_event() == QmpEvent(name="RESUME", data={})
    assert connection.next_event() == Answer(id=number, value={})
    assert connection.next_event() == QmpEvent(name="STOP", data={})


@pytest.mark.parametrize(
    "line",
    [
        b"}\n",
        b"[]\n",
        b'{"return": {}, "id": 99}\n',
        b'{"return": {}}\n',
        b'{"id": true, "return": {}}\n',
        GREETING,
        b"[" * 9999 + b"\n",
    ],
)
def test_what_is_no_qmp_ends_the_connection(connection: QmpConnection, line: bytes) -> None:
    connection.send("cont")
    with pytest.raises(QmpError):
        connection.receive_data(line)
    with pytest.raises(QmpError, match="over"):
        connection.receive_data(b"{}")
    with pytest.raises(QmpError):
        connection.send("cont")


def test_an_answer_counts_once(connection: QmpConnection) -> None:
    number, _ = connection.send("cont")
    line = b'{"return": {}, "id": %d}\n' % number
    connection.receive_data(line)
    with pytest.raises(QmpError, match="not asked"):
        connection.receive_data(line)


def test_answer_of_neither_kind_is_refused(connection: QmpConnection) -> None:
    number, _ = connection.send("cont")
    with pytest.raises(QmpError, match="neither"):
        connection.receive_data(b'{"id": %d}\n' % number)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_end_is_bounded(connection: QmpConnection, end: bytes) -> None:
    with pytest.raises(QmpError, match="more than"):
        connection.receive_data(b"x" * (LINE_LIMIT_BYTES + 1) + end)


def test_what_waits_is_bounded(connection: QmpConnection) -> None:
    for _ in range(WAITING_LIMIT):
        connection.send("cont")
    with pytest.raises(QmpError, match="wait"):
        connection.send("cont")


def test_greeting_of_an_odd_version_is_a_greeting() -> None:
    made = QmpConnection()
    made.receive_data(b'{"QMP": {"version": 3}}\n')
    assert made.next_event() == Greeting(version="unknown")
