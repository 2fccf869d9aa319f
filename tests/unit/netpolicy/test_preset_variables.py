"""`netpolicy.preset_variables`: what a session may be told of a mirror, and what not."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.preset_variables import MAX_VALUE_LENGTH, VARIABLES, refuse_host, refuse_index, refuse_variable

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "https://index.example/simple",
        "https://Index.Example./simple/",
        "http://nexus:8081/repository/py-all/simple",
        "https://[2001:db8::1]:8443/",
        "https://198.51.100.7/a%20b/~c/@corp/;v=1",
    ],
)
def test_the_url_of_an_index_may_be_told(url: str) -> None:
    assert refuse_index(url) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"https://user:{SECRET}@index.example/simple", "user or a password"),
        (f"https://{SECRET}@index.example/", "user or a password"),
        ("https://@index.example/", "user or a password"),
        (f"https://index.example/simple?token={SECRET}", "query"),
        (f"https://index.example/simple#{SECRET}", "fragment"),
        ("https://index.example/simple?", "query"),
        ("file:///srv/wheels", "no http or https"),
        ("ftp://index.example/", "no http or https"),
        ("index.example/simple", "no http or https"),
        ("https://", "no http or https"),
        ("https://index.example/a b", "no http or https"),
        ("https://index.example/\n", "no http or https"),
        ("https://index.example/\x1b[2J", "no http or https"),
        ("https://index.example/${SECRET}", "no http or https"),
        ("https://index.example\\@other.example/", "no http or https"),
        ("https://ind\u00e9x.example/", "no http or https"),
        ("https:///simple", "without a host"),
        ("https://*.example/", "without a host"),
        ("https://a..example/", "without a host"),
        ("https://index.example:99999/", "without a host"),
        ("https://[::1/", "without a host"),
        ("https://index.example%00/", "without a host"),
    ],
)
def test_what_is_no_such_url_or_holds_a_secret_may_not_and_is_not_repeated(url: str, why: str) -> None:
    said = refuse_index(url)
    assert said is not None
    assert why in said
    assert SECRET not in said


@pytest.mark.parametrize("entry", ["nexus", "nexus:8081", "index.example:80", "[2001:db8::1]:80"])
def test_a_host_may_be_trusted(entry: str) -> None:
    assert refuse_host(entry) is None


@pytest.mark.parametrize("entry", ["", "*", "*.example", "http://nexus", "u@nexus", "nexus/x", "a..b", "nexus\n"])
def test_what_is_no_host_may_not(entry: str) -> None:
    assert refuse_host(entry) is not None


def test_several_stand_a_space_apart_where_there_may_be_several() -> None:
    two = "https://a.example/ https://b.example/"
    assert refuse_variable("python", "PIP_EXTRA_INDEX_URL", two) is None
    assert refuse_variable("python", "PIP_INDEX_URL", two) is not None
    assert refuse_variable("python", "PIP_EXTRA_INDEX_URL", two.replace(" ", "  ")) is not None
    assert refuse_variable("python", "PIP_TRUSTED_HOST", "a:80 b") is None


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("python", "LD_PRELOAD"),
        ("python", "NPM_CONFIG_REGISTRY"),
        ("python", "pip_index_url"),
        ("rust", "PIP_INDEX_URL"),
    ],
)
def test_a_preset_sets_its_own_variables_and_no_others(preset: str, name: str) -> None:
    said = refuse_variable(preset, name, "https://index.example/")
    assert said == f"is no variable that the preset {preset} sets"


def test_a_value_is_bounded() -> None:
    url = "https://index.example/"
    assert refuse_variable("node", "NPM_CONFIG_REGISTRY", url.ljust(MAX_VALUE_LENGTH, "a")) is None
    assert refuse_variable("node", "NPM_CONFIG_REGISTRY", url.ljust(MAX_VALUE_LENGTH + 1, "a")) is not None
    assert refuse_variable("node", "NPM_CONFIG_REGISTRY", "") is not None


def test_no_two_presets_set_the_same() -> None:
    names = [name for variables in VARIABLES.values() for name in variables]
    assert len(names) == len(set(names))
