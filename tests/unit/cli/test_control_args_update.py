"""The words of `coworkctl update`."""

from __future__ import annotations

import pytest

from coworkd.cli.control_args import parse


def test_each_verb_is_known() -> None:
    assert parse(["update", "status"]).verb == "status"
    assert parse(["update", "apply"]).again is False
    assert parse(["update", "apply", "--again", "--later"]).later is True
    assert parse(["update", "rollback"]).to is None
    assert parse(["update", "rollback", "b", "--reason", "slow"]).reason == "slow"


def test_a_slot_is_one_of_three() -> None:
    with pytest.raises(SystemExit):
        parse(["update", "rollback", "c"])
