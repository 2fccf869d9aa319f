from __future__ import annotations

from coworkd.egressd.own_addresses import OwnAddresses


def test_an_answer_is_kept_for_a_second() -> None:
    now = 0.0
    asked: list[str] = []

    def ask(address: str) -> bool:
        asked.append(address)
        return True

    own = OwnAddresses(lambda: now, ask)
    assert own.has("198.51.100.1")
    assert own.has("198.51.100.1")
    assert asked == ["198.51.100.1"]
    now += 1.1
    assert own.has("198.51.100.1")
    assert len(asked) == 2


def test_answers_are_bounded() -> None:
    own = OwnAddresses(lambda: 0.0, lambda _: False)
    for number in range(5000):
        own.has(f"2001:db8::{number:x}")
    assert len(own._known) <= 1024
