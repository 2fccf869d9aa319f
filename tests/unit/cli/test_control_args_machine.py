"""The words of the machine below coworkd."""

from __future__ import annotations

from coworkd.cli.control_args import parse


def test_each_verb_is_known() -> None:
    assert parse(["boot-time"]).svg is None
    assert parse(["boot-time", "--svg", "x.svg"]).svg == "x.svg"
    assert parse(["sync-clock"]).command == "sync-clock"
    shutdown = parse(["shutdown", "--power-off", "--budget", "9"])
    assert (shutdown.power_off, shutdown.budget, shutdown.reason) == (True, 9.0, "")
    assert parse(["shutdown"]).power_off is False
