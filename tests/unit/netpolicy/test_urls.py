"""`netpolicy.urls`: what JavaScript takes for a URL, and its host."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.urls import is_url, url_host
from tests.unit.netpolicy.verdicts import verdicts


@pytest.mark.parametrize(("text", "valid"), verdicts("urls"))
def test_a_url_is_one_where_sandbox_runtime_takes_it(text: str, valid: bool) -> None:
    assert is_url(text) is valid


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://Example.COM./x", "example.com."),
        ("http://127.1/", "127.0.0.1"),
        ("http://[0:0::1]:80/", "[::1]"),
        ("http://user@h.example:80/", "h.example"),
        ("http://ex%41mple.com", "example.com"),
        ("http://\u00fc.example/", "xn--tda.example"),
        ("foo://Some%zz:80/", "Some%zz"),
        ("mailto:x", ""),
        ("file:///etc", ""),
        ("file://Host/x", "host"),
        ("http://a b/", None),
        ("no url", None),
    ],
)
def test_the_host_is_the_canonical_one(text: str, host: str | None) -> None:
    assert url_host(text) == host
