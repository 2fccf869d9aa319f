from __future__ import annotations

import json
from pathlib import Path

import pytest

from coworkd.system.pip_settings import read_pip
from tests.unit.system.settings_machine import Programs, machine, put

DEFAULT = Programs({"/usr/bin/python3": json.dumps(["https://default.example/simple", "https://files.example"])})


def urls(*given: object, **options: object) -> list[tuple[str, str]]:
    return [tuple(url) for url in read_pip(machine(*given, **options)).urls]  # type: ignore[arg-type,misc]


def test_without_settings_pip_itself_is_asked(tmp_path: Path) -> None:
    assert urls(tmp_path, programs=DEFAULT) == [
        ("https://default.example/simple", "pip of /usr/bin/python3"),
        ("https://files.example", "pip of /usr/bin/python3"),
    ]


def test_an_interpreter_of_ours_answers_where_the_systems_has_no_pip(tmp_path: Path) -> None:
    import sys

    programs = Programs({sys.executable: '["https://own.example/simple"]'})
    assert urls(tmp_path, programs=programs) == [("https://own.example/simple", f"pip of {sys.executable}")]


@pytest.mark.parametrize("answer", ["", "not json", "null", "[1]", None])
def test_where_nobody_knows_the_default_it_is_said(tmp_path: Path, answer: str | None) -> None:
    programs = Programs({} if answer is None else {"/usr/bin/python3": answer})
    told = read_pip(machine(tmp_path, programs=programs))
    assert told.urls == []
    assert "no interpreter here has a pip" in told.notes[0]


def test_a_mirror_takes_the_place_of_the_default(tmp_path: Path) -> None:
    put(tmp_path, "/etc/pip.conf", "[global]\nindex-url = https://mirror.example/simple\n")
    assert urls(tmp_path, programs=DEFAULT) == [("https://mirror.example/simple", "/etc/pip.conf")]


def test_the_default_that_is_set_by_name_keeps_the_place_of_its_files(tmp_path: Path) -> None:
    environ = {"PIP_INDEX_URL": "https://default.example/simple/"}
    assert urls(tmp_path, environ=environ, programs=DEFAULT) == [
        ("https://default.example/simple/", "PIP_INDEX_URL in the environment"),
        ("https://default.example/simple", "pip of /usr/bin/python3"),
        ("https://files.example", "pip of /usr/bin/python3"),
    ]
    assert read_pip(machine(tmp_path, environ=environ)).notes == [], "it may well be a mirror"


FILES = [
    ("/etc/xdg/pip/pip.conf", "global"),
    ("/etc/pip.conf", "global"),
    ("/root/.pip/pip.conf", "global"),
    ("/root/.config/pip/pip.conf", "global"),
    ("/usr/pip.conf", "global"),
]


@pytest.mark.parametrize("last", range(1, len(FILES) + 1))
def test_the_later_file_wins(tmp_path: Path, last: int) -> None:
    for path, section in FILES[:last]:
        put(tmp_path, path, f"[{section}]\nindex_url = https://{path.replace('/', '-').strip('-')}.example/\n")
    [(_, by)] = urls(tmp_path)
    assert by == FILES[last - 1][0]


def test_install_wins_over_global_and_the_environment_over_both(tmp_path: Path) -> None:
    text = "[install]\nindex-url = https://install.example/\n[global]\nindex-url = https://global.example/\n"
    put(tmp_path, "/etc/pip.conf", text)
    assert urls(tmp_path) == [("https://install.example/", "/etc/pip.conf")]
    environ = {"PIP_INDEX_URL": "https://env.example/"}
    assert urls(tmp_path, environ=environ) == [("https://env.example/", "PIP_INDEX_URL in the environment")]


def test_extra_indexes_and_link_pages_add(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/etc/pip.conf",
        "[global]\nindex-url = https://a.example/\nextra-index-url =\n    https://b.example/\n    https://c.example/\n"
        "find-links = https://d.example/links /srv/wheels\n",
    )
    assert {url for url, _ in urls(tmp_path)} == {f"https://{name}.example/" for name in "abc"} | {
        "https://d.example/links"
    }


def test_no_index_leaves_link_pages_only(tmp_path: Path) -> None:
    put(tmp_path, "/etc/pip.conf", "[global]\nno-index = true\nfind-links = https://d.example/\n")
    assert urls(tmp_path, programs=DEFAULT) == [("https://d.example/", "/etc/pip.conf")]
    put(tmp_path, "/etc/pip.conf", "[global]\nno-index = false\nindex-url = https://a.example/\n")
    assert urls(tmp_path) == [("https://a.example/", "/etc/pip.conf")]


def test_a_named_file_stands_for_the_users_own(tmp_path: Path) -> None:
    put(tmp_path, "/root/.config/pip/pip.conf", "[global]\nextra-index-url = https://user.example/\n")
    put(tmp_path, "/srv/pip.conf", "[global]\nindex-url = https://named.example/\n")
    environ = {"PIP_CONFIG_FILE": "/srv/pip.conf"}
    assert urls(tmp_path, environ=environ) == [("https://named.example/", "/srv/pip.conf")]


def test_a_home_that_is_not_ones_own_is_not_looked_at(tmp_path: Path) -> None:
    put(tmp_path, "/root/.config/pip/pip.conf", "[global]\nindex-url = https://user.example/\n")
    environ = {"XDG_CONFIG_HOME": "/root/.config"}
    assert urls(tmp_path, home=None, environ=environ, programs=DEFAULT)[0][0] == "https://default.example/simple"


def test_a_broken_file_is_noted_without_its_lines(tmp_path: Path) -> None:
    put(tmp_path, "/etc/pip.conf", "index-url = https://user:hunter2@mirror.example/\n")
    told = read_pip(machine(tmp_path, programs=DEFAULT))
    assert "/etc/pip.conf is not as pip wants it" in told.notes[0]
    assert "hunter2" not in "".join(told.notes)
    assert told.urls


def variables(*given: object, **options: object) -> dict[str, list[str]]:
    told = read_pip(machine(*given, **options))  # type: ignore[arg-type]
    return {name: [url.text for url in urls] for name, urls in told.variables.items()}


def test_a_default_is_told_by_no_variable(tmp_path: Path) -> None:
    assert variables(tmp_path, programs=DEFAULT) == {}


def test_what_is_set_is_told_by_the_variables_of_pip_and_uv(tmp_path: Path) -> None:
    put(tmp_path, "/etc/pip.conf", "[global]\nextra-index-url = https://b.example/ file:///srv/c\n")
    extra = ["https://b.example/", "file:///srv/c"]
    assert variables(tmp_path, programs=DEFAULT) == {"PIP_EXTRA_INDEX_URL": extra, "UV_INDEX": extra}
    told = variables(tmp_path, environ={"PIP_INDEX_URL": "https://a.example/"})
    assert (told["PIP_INDEX_URL"], told["UV_DEFAULT_INDEX"]) == (["https://a.example/"], ["https://a.example/"])


def test_an_index_that_is_not_asked_is_told_by_no_variable(tmp_path: Path) -> None:
    put(tmp_path, "/etc/pip.conf", "[global]\nno-index = true\nindex-url = https://a.example/\n")
    assert variables(tmp_path) == {}


@pytest.mark.parametrize(
    ("url", "trusted", "told"),
    [
        ("http://nexus:8081/s", "nexus", True),
        ("http://Nexus:8081/s", "other nexus:8081", True),
        ("http://nexus/s", "nexus", True),
        ("http://nexus:8081/s", "nexus:80", False),
        ("http://nexus:8081/s", "", False),
        ("https://nexus/s", "nexus", False),
        ("http://nexus@other/s", "nexus", False),
    ],
)
def test_only_a_host_without_tls_that_pip_may_trust_here_is_told(
    tmp_path: Path, url: str, trusted: str, told: bool
) -> None:
    put(tmp_path, "/etc/pip.conf", f"[global]\nindex-url = {url}\ntrusted-host = {trusted}\n")
    assert variables(tmp_path).get("PIP_TRUSTED_HOST", []) == ([url] if told else [])


def test_certificates_of_its_own_are_noted_unless_they_are_the_systems(tmp_path: Path) -> None:
    put(tmp_path, "/etc/pip.conf", "[global]\ncert = /srv/ca.pem\nno-index = true\n")
    [note] = read_pip(machine(tmp_path)).notes
    assert note.startswith("/etc/pip.conf: sessions trust its file of certificates after `coworkctl ca install")
    environ = {"PIP_CERT": "/etc/ssl/certs/ca-certificates.crt"}
    assert read_pip(machine(tmp_path, environ=environ)).notes == []
