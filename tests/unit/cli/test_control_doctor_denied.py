"""Which wall refused something: by the record, with what would let it through."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.cli.control_doctor_denied import explain_denial, explain_denials, is_denial


def egress(reason: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "egress.decision",
        "at": 1.0,
        "session": "s",
        "host": "h.example",
        "port": 443,
        "allowed": False,
        "reason": reason,
        **more,
    }


@pytest.mark.parametrize(
    ("record", "wall", "remedy"),
    [
        (egress("host is not on the allow list of x"), "egress rule", "egress allow s h.example"),
        (egress("host is on the deny list", rule="*.example"), "egress rule", "no allowance lifts"),
        (egress("resolved to a private address"), "address guard", "allow_private"),
        (egress("too many connections"), "egress limit", "coworkd.limits"),
        ({"kind": "process.denied", "argv": ["x"], "message": "no", "rule": "cpu_max"}, "ceiling", "cpu_max"),
        ({"kind": "process.denied", "argv": ["x"], "message": "no"}, "policy", "policy show"),
        ({"kind": "process.start_failed", "stage": "not_found"}, "start", "PATH"),
        (
            {"kind": "approval.answer", "session": "s", "name": "work", "answer": "deny"},
            "folder guard",
            "folder mode s work rwd",
        ),
        ({"kind": "policy.refused", "message": "bad"}, "policy", "policy check"),
        ({"kind": "link.refused", "peer": "cid 1", "endpoint": "vsock", "reason": "no"}, "link", "CID 2"),
        ({"kind": "update.refused", "version": "2", "reason": "older"}, "update", "update status"),
        ({"kind": "session.fail", "message": "broken"}, "session.fail", "audit tail"),
    ],
)
def test_each_wall_is_named_with_a_remedy(record: dict[str, Any], wall: str, remedy: str) -> None:
    assert is_denial(record)
    finding = explain_denial(record)
    assert finding.check == wall
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    "record",
    [
        egress("allowed", allowed=True),
        {"kind": "approval.answer", "answer": "once"},
        {"kind": "approval.answer", "answer": "withdrawn"},
        {"kind": "process.exit"},
    ],
)
def test_what_was_allowed_is_no_denial(record: dict[str, Any]) -> None:
    assert not is_denial(record)


def test_equal_ones_are_told_once_with_their_number() -> None:
    records = [egress("host is not on the allow list", at=float(number)) for number in range(5)]
    told = list(explain_denials([*records, {"kind": "policy.refused", "message": "bad", "at": 9.0}], limit=10))
    assert [one.check for one in told] == ["egress rule", "policy", "system calls"]
    assert told[0].detail.endswith("(5 times)")


def test_only_the_newest_are_told() -> None:
    records = [egress("host is not on the allow list", host=f"h{number}") for number in range(30)]
    told = list(explain_denials(records, limit=2))
    assert ["h28" in told[0].detail, "h29" in told[1].detail, len(told)] == [True, True, 3]


def test_where_nothing_was_denied_the_silent_wall_is_named() -> None:
    [finding] = explain_denials([], limit=20)
    assert "policy explain" in finding.remedy
