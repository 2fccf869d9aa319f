from __future__ import annotations

import errno
import resource

import pytest

from coworkd.system.own_address import is_own_address


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
