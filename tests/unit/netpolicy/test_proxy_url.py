"""`netpolicy.proxy_url`: parent proxies taken apart, credentials kept out of what is shown."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.proxy_url import ProxyUrl, parse_proxy_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example:3128", ProxyUrl(scheme="http", host="proxy.example", port=3128)),
        ("HTTP://Proxy.Example/", ProxyUrl(scheme="http", host="proxy.example", port=80)),
        ("proxy:3128", ProxyUrl(scheme="http", host="proxy", port=3128)),
        ("https://p.example", ProxyUrl(scheme="https", host="p.example", port=443)),
        ("socks5://127.1", ProxyUrl(scheme="socks5h", host="127.0.0.1", port=1080)),
        ("socks5h://[2001:DB8::1]:1", ProxyUrl(scheme="socks5h", host="2001:db8::1", port=1)),
        ("http://u:p%40ss@h:1/x?y", ProxyUrl(scheme="http", host="h", port=1, username="u", password="p@ss")),
        ("http://u@h:1", ProxyUrl(scheme="http", host="h", port=1, username="u")),
        ("http://:p@h:1", ProxyUrl(scheme="http", host="h", port=1, username="", password="p")),
        ("http://u:p:q@h:1", ProxyUrl(scheme="http", host="h", port=1, username="u", password="p:q")),
    ],
)
def test_a_proxy_is_taken_apart(url: str, expected: ProxyUrl) -> None:
    assert parse_proxy_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *["", "ftp://h", "file:///h", "http://", "http://:80", "http://h:0", "http://h:65536", "http://h:x"],
        *["http://[::1", "http://[nope]:1", "http://a b:1", "http:x", "http://a..b:1", "http://u@v@h:1"],
    ],
)
def test_what_is_no_proxy_is_none(url: str) -> None:
    assert parse_proxy_url(url) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://user:secret@h.example:1", "http://h.example:1"), ("socks5://user:secret@[::1]", "socks5h://[::1]:1080")],
)
def test_credentials_are_not_shown(url: str, shown: str) -> None:
    proxy = parse_proxy_url(url)
    assert proxy is not None
    assert proxy.shown == shown
