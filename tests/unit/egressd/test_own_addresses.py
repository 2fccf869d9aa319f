from __future__ import annotations

import errno
import resource

import pytest

from coworkd.egressd.own_addresses import OwnAddresses, is_own_address


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_what_the_kernel_delivers_here_is_ours(address: str) -> None:
    assert is_own_address(address)


@pytest.mark.parametrize("address", ["198.51.100.77", "2001:db8::77", "255.255.255.255"])
def test_what_lies_elsewhere_is_not(address: str) -> None:
    assert not is_own_address(address)


def test_what_cannot_be_asked_is_an_error_and_no_answer() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        with pytest.raises(OSError, match="open files") as caught:
            is_own_address("198.51.100.77")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE


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
