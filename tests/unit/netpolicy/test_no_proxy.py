"""`netpolicy.no_proxy`: which hosts are reached without the parent."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.no_proxy import NoProxy
from tests.unit.netpolicy.verdicts import verdicts


@pytest.mark.parametrize(("listed", "host", "covered"), verdicts("no_proxy"))
def test_entries_cover_what_they_cover_for_sandbox_runtime(listed: str, host: str, covered: bool) -> None:
    assert NoProxy(listed).covers(host) is covered


def test_entries_add_up() -> None:
    listed = NoProxy(" a.example ,, 10.0.0.0/8,[2001:db8::1]:80 , *.b.example:8080 ")
    covered = ["a.example", "x.a.example", "10.1.1.1", "2001:db8::1", "b.example", "y.b.example"]
    assert all(listed.covers(host) for host in covered)
    assert not any(listed.covers(host) for host in ["xa.example", "11.1.1.1", "2001:db8::2", "example"])


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.255.0.1", "::1"])
def test_loopback_never_goes_through_a_parent(host: str) -> None:
    assert NoProxy("").covers(host)
