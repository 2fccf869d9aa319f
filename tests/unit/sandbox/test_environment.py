from __future__ import annotations

import os

import pytest
from msgspec import structs

from coworkd.model.errors import InvalidParams
from coworkd.sandbox.environment import compose_environment
from coworkd.sandbox.proxy_variables import PROXY_VARIABLES, TRUST_VARIABLES
from tests.unit.sandbox.spawn_room import SESSION

BARE = structs.replace(SESSION, env={})


def test_environment_holds_nothing_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COWORKD_TOKEN", "secret")
    made = compose_environment(BARE, {}, tty=False)
    assert set(made) == {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "TERM", "LANG", "TZ", "TMPDIR"}
    assert os.environ["COWORKD_TOKEN"] not in made.values()


def test_environment_names_the_sessions_home_and_user() -> None:
    made = compose_environment(BARE, {}, tty=False)
    assert (made["HOME"], made["USER"], made["LOGNAME"]) == ("/sessions/bob", "bob", "bob")
    assert made["PATH"].startswith("/sessions/bob/.local/bin:")
    assert made["TMPDIR"] == "/tmp"


@pytest.mark.parametrize(("tty", "term"), [(True, "xterm-256color"), (False, "dumb")])
def test_environment_knows_a_terminal(tty: bool, term: str) -> None:
    assert compose_environment(BARE, {}, tty=tty)["TERM"] == term


def test_environment_lets_the_request_win_over_the_session_over_the_defaults() -> None:
    session = structs.replace(SESSION, env={"TZ": "Asia/Tokyo", "A": "session"})
    made = compose_environment(session, {"A": "request"}, tty=False)
    assert (made["TZ"], made["A"]) == ("Asia/Tokyo", "request")


def test_environment_leads_to_the_proxies_of_a_session_that_has_them() -> None:
    made = compose_environment(structs.replace(BARE, proxied=True), {}, tty=False)
    assert made == {**compose_environment(BARE, {}, tty=False), **PROXY_VARIABLES}
    assert made["TMPDIR"] == "/tmp"


def test_environment_names_the_trust_of_a_session_that_has_one() -> None:
    made = compose_environment(structs.replace(BARE, trust_bundle="/etc/coworkd/trust/b.pem"), {}, tty=False)
    assert {name for name, value in made.items() if value == "/etc/coworkd/trust/b.pem"} == set(TRUST_VARIABLES)
    assert not set(PROXY_VARIABLES) & set(made)


def test_environment_tells_tools_of_mirrors_and_lets_session_and_request_win() -> None:
    mirrors = {"PIP_INDEX_URL": "mirror", "NPM_CONFIG_REGISTRY": "mirror", "UV_INDEX": "mirror"}
    session = structs.replace(SESSION, proxied=True, tool_variables=mirrors, env={"PIP_INDEX_URL": "session"})
    made = compose_environment(session, {"NPM_CONFIG_REGISTRY": "request"}, tty=False)
    assert (made["PIP_INDEX_URL"], made["NPM_CONFIG_REGISTRY"], made["UV_INDEX"]) == ("session", "request", "mirror")
    assert made["HTTPS_PROXY"] == PROXY_VARIABLES["HTTPS_PROXY"]


def test_environment_leaves_out_a_mirror_that_is_given_in_the_other_case() -> None:
    session = structs.replace(BARE, tool_variables={"NPM_CONFIG_REGISTRY": "mirror", "PIP_INDEX_URL": "mirror"})
    made = compose_environment(session, {"npm_config_registry": "request"}, tty=False)
    assert (made["npm_config_registry"], made["PIP_INDEX_URL"]) == ("request", "mirror")
    assert "NPM_CONFIG_REGISTRY" not in made


def test_environment_lets_session_and_request_win_over_proxies_and_trust() -> None:
    session = structs.replace(
        SESSION, proxied=True, trust_bundle="/b", env={"HTTPS_PROXY": "session", "PIP_CERT": "session"}
    )
    made = compose_environment(session, {"no_proxy": "*", "SSL_CERT_FILE": ""}, tty=False)
    assert (made["HTTPS_PROXY"], made["PIP_CERT"]) == ("session", "session")
    assert (made["no_proxy"], made["SSL_CERT_FILE"]) == ("*", "")
    assert made["CURL_CA_BUNDLE"] == "/b"


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "Ä", "A=", "A\n", "\nA"])
def test_environment_refuses_names_no_shell_can_set(name: str) -> None:
    with pytest.raises(InvalidParams, match="not usable"):
        compose_environment(BARE, {name: "x"}, tty=False)


def test_environment_refuses_a_nul_of_the_session_too() -> None:
    with pytest.raises(InvalidParams, match="NUL"):
        compose_environment(structs.replace(SESSION, env={"A": "\0"}), {}, tty=False)
