from __future__ import annotations

import errno

import msgpack  # type: ignore[import-untyped]
import pytest

from coworkd.model import errors
from coworkd.model.errors import Code, CoworkError, StartFailed
from coworkd.wire.fault import RemoteFault, code_of, compose_fault, parse_fault

ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, CoworkError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_travels_with_its_code_message_and_details(kind: type[CoworkError]) -> None:
    sent = kind("what to do", stage="not_found", errno=errno.ENOENT, path=b"/a\xff")
    back = parse_fault(msgpack.unpackb(msgpack.packb(compose_fault(sent))))
    assert (code_of(back), back.message, back.details) == (sent.code, sent.message, sent.details)


@pytest.mark.parametrize(
    "kind", [each for each in ALL if len([one for one in ALL if one.code == each.code]) == 1 and each.code != "UNKNOWN"]
)
def test_a_code_of_one_class_comes_back_as_that_class(kind: type[CoworkError]) -> None:
    assert type(parse_fault(compose_fault(kind("why")))) is kind


def test_start_failure_is_known_by_its_stage() -> None:
    assert type(parse_fault(compose_fault(StartFailed("no", stage="bad_cwd")))) is StartFailed
    assert type(parse_fault(compose_fault(StartFailed("no", stage="odd")))) is errors.InvalidState


def test_code_without_a_class_is_kept() -> None:
    back = parse_fault({"code": "DATA_LOSS", "message": "gone", "details": {"remote_code": "x", "a": 1}})
    assert isinstance(back, RemoteFault)
    assert (code_of(back), back.details) == (Code.DATA_LOSS, {"a": 1})
    assert compose_fault(back)["code"] == "DATA_LOSS"


@pytest.mark.parametrize(
    "fault", [{}, {"code": 7}, {"code": "NEW_ONE", "message": "m"}, {"details": [1], "message": 3}]
)
def test_odd_faults_become_unknown(fault: dict[str, object]) -> None:
    back = parse_fault(fault)
    assert code_of(back) == Code.UNKNOWN
    assert back.message


def test_unknown_code_is_told_in_details() -> None:
    assert parse_fault({"code": "NEW_ONE", "message": "m", "details": {}}).details == {"code": "NEW_ONE"}


def test_details_are_made_encodable_and_bounded() -> None:
    deep: list[object] = []
    for _ in range(50):
        deep = [deep]
    error = CoworkError(
        "x" * 10_000 + "\udcff", odd=object(), big=2**80, nan=float("nan"), deep=deep, many=list(range(9999)), none=None
    )
    error.details["\udcff"] = "\udc80"
    fault = msgpack.unpackb(msgpack.packb(compose_fault(error)))
    assert len(fault["message"]) == 4096
    assert fault["details"]["big"] == str(2**80)
    assert fault["details"]["nan"] == "nan"
    assert len(fault["details"]["many"]) == 256
    assert fault["details"]["\\udcff"] == "\\udc80"
    assert "none" not in fault["details"]
