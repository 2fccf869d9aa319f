"""Logs: the known form, structure, bounds, and nothing that forges or leaks."""

from __future__ import annotations

import io
import json
import logging
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.calls import Logs, SetLogLevel
from coworkd.model.errors import DiskFailed, InvalidParams, NotFound, OutOfRange
from coworkd.services import logs
from coworkd.services.logs import LogService, escape

LOGGER = logging.getLogger("coworkd.process")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def service(stream: io.StringIO) -> Iterator[LogService]:
    made = LogService(stream=stream, localtime=time.gmtime, journal=False)
    yield made
    made.close()


def log_at_start_of_2026(message: str, *values: Any, **more: Any) -> None:
    record = LOGGER.makeRecord(LOGGER.name, logging.INFO, "f", 1, message, values, None, extra=more or None)
    record.created = 1_772_293_554.0
    LOGGER.handle(record)


def test_line_has_the_known_form(service: LogService, stream: io.StringIO) -> None:
    log_at_start_of_2026("started PID %d", 812, instance=7, fields={"session": "demo"})
    assert stream.getvalue() == "2026/02/28 15:45:54 [process:7] started PID 812 session=demo\n"


def test_journal_lines_begin_with_their_priority(stream: io.StringIO) -> None:
    service = LogService(stream=stream, journal=True)
    LOGGER.warning("one")
    LOGGER.error("two")
    service.close()
    assert [line[:3] for line in stream.getvalue().splitlines()] == ["<4>", "<3>"]


@pytest.mark.parametrize("evil", ["a\nb", "a\rb", "a\x1b[2Jb", "a\x00b", "a\u2028b", "a\u202eb", "a\x85b", "a\udcffb"])
def test_no_message_makes_a_second_line_or_a_hidden_one(service: LogService, stream: io.StringIO, evil: str) -> None:
    LOGGER.info("name %s", evil, extra={"fields": {"name": evil}, "instance": evil})
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert evil not in text
    assert text.isprintable() or text.rstrip("\n").isprintable()


def test_escape_leaves_other_text_alone() -> None:
    assert escape("grün \\n ✓") == "grün \\n ✓"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("token", "s3cret", "(not logged)"),
        ("Authorization", "Bearer s3cret", "(not logged)"),
        ("payload", b"s3cret", "(6 bytes)"),
        ("environment", {"TOKEN": "s3cret"}, "(1 items)"),
        ("argv", ["--password=s3cret"], "(1 items)"),
        ("pid", 7, "7"),
    ],
)
def test_fields_show_nothing_secret(
    service: LogService, stream: io.StringIO, name: str, value: object, shown: str
) -> None:
    LOGGER.info("x", extra={"fields": {name: value}})
    assert stream.getvalue().endswith(f" {name}={shown}\n")
    assert "s3cret" not in stream.getvalue()


def test_long_messages_are_cut_and_say_so(service: LogService, stream: io.StringIO) -> None:
    LOGGER.info("x" * 100_000)
    assert len(stream.getvalue()) < logs.MESSAGE_LIMIT + 100
    assert "(100000 characters)" in stream.getvalue()


def test_traceback_follows_line_by_line(service: LogService, stream: io.StringIO) -> None:
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        LOGGER.exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("[process] failed")
    assert all("[process] | " in line for line in lines[1:])
    assert "ValueError: bad" in stream.getvalue()


def test_file_holds_json_for_its_owner_only(tmp_path: Path, stream: io.StringIO) -> None:
    path = tmp_path / "coworkd.log"
    service = LogService(stream=stream, file=path)
    try:
        raise ValueError("bad")
    except ValueError:
        LOGGER.error("a\nb", exc_info=True, extra={"fields": {"pid": 7}})
    service.close()
    line = json.loads(path.read_text())
    assert (line["level"], line["component"], line["message"], line["fields"]) == (
        "error",
        "process",
        "a\\nb",
        {"pid": 7},
    )
    assert "ValueError: bad" in line["traceback"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_is_bounded_by_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_LIMIT_BYTES", 1000)
    path = tmp_path / "coworkd.log"
    service = LogService(stream=None, file=path)
    for number in range(100):
        LOGGER.info("line %d", number)
    service.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["coworkd.log", "coworkd.log.1"]
    assert all(found.stat().st_size <= 1000 for found in tmp_path.iterdir())
    assert json.loads(path.read_text().splitlines()[-1])["message"] == "line 99"


def test_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiskFailed, match=r"log\.file"):
        LogService(stream=None, file=tmp_path / "none" / "coworkd.log")
    assert logging.getLogger("coworkd").handlers == []


def test_ring_keeps_the_newest_and_counts_the_rest(service: LogService, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(logs.RING_LINES + 5):
        LOGGER.info("line %d", number)
    answer = service.logs(Logs(limit=2))
    assert [line.message for line in answer.lines] == [f"line {logs.RING_LINES + 3}", f"line {logs.RING_LINES + 4}"]
    assert answer.dropped == 5
    assert service.logs(Logs(limit=logs.RING_LINES)).lines[0].message == "line 5"


def test_logs_behind_a_number_are_had_once_each_in_order(service: LogService) -> None:
    for number in range(10):
        LOGGER.info("line %d", number)
    first = service.logs(Logs(after=0, limit=6))
    rest = service.logs(Logs(after=first.next, limit=6))
    assert [line.message for line in first.lines + rest.lines] == [f"line {number}" for number in range(10)]
    assert (first.next, rest.next, rest.missed) == (6, 10, 0)
    assert service.logs(Logs(after=10)).lines == ()


def test_logs_behind_a_number_pass_over_what_does_not_fit(service: LogService) -> None:
    LOGGER.info("no")
    LOGGER.warning("yes")
    LOGGER.info("no")
    answer = service.logs(Logs(after=0, level="warning"))
    assert [line.message for line in answer.lines] == ["yes"]
    assert answer.next == 3


def test_logs_say_how_many_were_gone(service: LogService) -> None:
    for number in range(logs.RING_LINES + 5):
        LOGGER.info("line %d", number)
    answer = service.logs(Logs(after=2, limit=1))
    assert (answer.lines[0].message, answer.missed) == ("line 5", 3)


def test_logs_refuse_a_number_that_is_not_reached(service: LogService) -> None:
    with pytest.raises(OutOfRange):
        service.logs(Logs(after=1))


def test_logs_fit_component_and_level(service: LogService) -> None:
    LOGGER.info("one", extra={"instance": 7})
    LOGGER.warning("two")
    logging.getLogger("coworkd.session").error("three")

    def fitting(**wanted: Any) -> list[str]:
        return [line.message for line in service.logs(Logs(**wanted)).lines]

    assert fitting(component="process") == ["one", "two"]
    assert fitting(component="process:7") == ["one"]
    assert fitting(level="warning") == ["two", "three"]


@pytest.mark.parametrize("wanted", [Logs(limit=0), Logs(limit=logs.RING_LINES + 1), Logs(level="loud")])
def test_logs_refuse_what_cannot_be_meant(service: LogService, wanted: Logs) -> None:
    with pytest.raises(InvalidParams):
        service.logs(wanted)


def test_level_of_one_component(service: LogService, stream: io.StringIO) -> None:
    other = logging.getLogger("coworkd.session")
    service.set_log_level(SetLogLevel(level="debug", component="process"))
    LOGGER.debug("shown")
    other.debug("hidden")
    assert [line.message for line in service.logs(Logs()).lines] == ["shown"]


def test_level_of_all_takes_back_the_level_of_each(service: LogService) -> None:
    service.set_log_level(SetLogLevel(level="debug", component="process"))
    service.set_log_level(SetLogLevel(level="error"))
    LOGGER.warning("hidden")
    assert service.logs(Logs()).lines == ()


def test_level_of_an_unknown_component_is_refused(service: LogService) -> None:
    with pytest.raises(NotFound, match="process"):
        service.set_log_level(SetLogLevel(level="debug", component="nonesuch"))
    assert "coworkd.nonesuch" not in logging.Logger.manager.loggerDict


def test_a_closed_stream_stops_nothing_and_is_counted(service: LogService, stream: io.StringIO) -> None:
    stream.close()
    LOGGER.info("one")
    answer = service.logs(Logs())
    assert ([line.message for line in answer.lines], answer.dropped) == (["one"], 1)


def test_close_puts_the_logger_back(stream: io.StringIO) -> None:
    root = logging.getLogger("coworkd")
    before = (root.level, root.propagate, list(root.handlers))
    service = LogService(stream=stream, level="debug")
    service.close()
    service.close()
    assert (root.level, root.propagate, root.handlers) == before
