"""Output put together, within its limit."""

from __future__ import annotations

import pytest

from coworkd.client.collect import Collector
from coworkd.client.inbox import Output
from coworkd.model.errors import LimitExceeded


def test_pieces_are_joined_by_stream() -> None:
    collector = Collector(100)
    collector.add(Output("stdout", 0, b"a", False))
    collector.add(Output("stderr", 0, b"!", True))
    collector.add(Output("stdout", 1, b"b", True))
    assert collector.streams() == {"stdout": b"ab", "stderr": b"!"}


def test_more_than_the_limit_is_refused_and_exactly_the_limit_is_not() -> None:
    collector = Collector(3)
    collector.add(Output("stdout", 0, b"abc", False))
    with pytest.raises(LimitExceeded, match="3 bytes"):
        collector.add(Output("stderr", 0, b"d", False))
