from __future__ import annotations

import pytest

from coworkd.release.refusal import ReleaseRefused
from coworkd.release.versions import parse_version


def test_versions_are_compared_number_by_number() -> None:
    texts = ["0.9", "0.10", "1.0", "1.0.1", "1.2", "1.10", "2.0.0.1", "10.0"]
    assert sorted(texts, key=parse_version) == texts


def test_what_is_left_away_is_zero() -> None:
    assert parse_version("1.4") == parse_version("1.4.0") == parse_version("1.4.0.0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.",
        ".1",
        "01.2",
        "1.2.3.4.5",
        "1.2rc1",
        "1.2-1",
        "v1.2",
        "1.2\n",
        "1.2 ",
        "-1.2",
        "1.٢",
        "1.9999999999",
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ReleaseRefused) as refused:
        parse_version(text)
    assert refused.value.why == "malformed"
