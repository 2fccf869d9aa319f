"""Own addresses, as this machine's kernel routes them."""

from __future__ import annotations

import pytest

from host_stub.egress_own_addresses import is_own_address


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9"])
def test_loopback_is_ours(address: str) -> None:
    assert is_own_address(address)


def test_a_documentation_address_is_not_ours() -> None:
    assert not is_own_address("192.0.2.1")
