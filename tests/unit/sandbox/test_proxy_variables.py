from __future__ import annotations

import urllib.request
from urllib.parse import urlsplit

import pytest

from coworkd.model.launch import HTTP_PROXY_PORT, SOCKS_PROXY_PORT
from coworkd.sandbox.proxy_variables import PROXY_VARIABLES, TRUST_VARIABLES

URLS = {name: urlsplit(value) for name, value in PROXY_VARIABLES.items() if "://" in value}


def test_every_proxy_is_an_address_of_the_loopback() -> None:
    assert {url.hostname for url in URLS.values()} == {"127.0.0.1"}
    ports = {"http": HTTP_PROXY_PORT, "socks5h": SOCKS_PROXY_PORT}
    assert all(url.port == ports[url.scheme] for url in URLS.values())
    assert not any(url.username or url.password or url.path for url in URLS.values())


def test_what_tools_take_for_http_is_http() -> None:
    assert {name for name, url in URLS.items() if url.scheme != "http"} == {"FTP_PROXY", "ftp_proxy"}


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "FTP_PROXY", "GRPC_PROXY"])
def test_both_spellings_say_the_same(name: str) -> None:
    assert PROXY_VARIABLES[name] == PROXY_VARIABLES[name.lower()]


@pytest.mark.parametrize(
    ("host", "direct"),
    [("localhost", True), ("127.0.0.1", True), ("10.0.0.1", False), ("192.168.1.1", False), ("www.example.com", False)],
)
def test_nothing_but_the_loopback_goes_past_the_proxies(
    monkeypatch: pytest.MonkeyPatch, host: str, direct: bool
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, PROXY_VARIABLES[name])
    assert bool(urllib.request.proxy_bypass(host)) is direct


def test_no_variable_makes_a_java_speak() -> None:
    speaking = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}
    assert not speaking & {*PROXY_VARIABLES, *TRUST_VARIABLES}


def test_every_name_stands_once() -> None:
    assert len(set(TRUST_VARIABLES)) == len(TRUST_VARIABLES)
    assert not set(TRUST_VARIABLES) & set(PROXY_VARIABLES)
