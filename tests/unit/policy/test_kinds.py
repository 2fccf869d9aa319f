"""`policy.kinds`: told by content, never guessed."""

from __future__ import annotations

import pytest

from coworkd.policy.kinds import Kind, tell_kind
from coworkd.settings import BadFile
from tests.unit.policy.policy_layers import SECCOMP, SRT


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [
        ("/x/ceiling.toml", "", Kind.CEILING),
        ("/x/other.toml", "", Kind.PROFILE),
        ("ceiling.toml", "not toml at all", Kind.CEILING),
        ("any.json", SECCOMP, Kind.SECCOMP),
        ("any", SRT, Kind.EGRESS),
        ("half.json", '{"filesystem": 1}', Kind.EGRESS),
    ],
)
def test_kind_is_told(file: str, text: str, kind: Kind) -> None:
    assert tell_kind(text.encode(), file=file) is kind


@pytest.mark.parametrize(
    ("text", "line", "close"),
    [('{"x": 1}', 1, None), ('{\n"defaultAcion": 1}', 2, "defaultAction"), ("{}", 1, None), ("text", 1, None)],
)
def test_what_is_none_of_ours_is_refused(text: str, line: int, close: str | None) -> None:
    with pytest.raises(BadFile) as caught:
        tell_kind(text.encode(), file="f.json")
    first = caught.value.findings[0]
    assert (first.line, first.nearest) == (line, close)
