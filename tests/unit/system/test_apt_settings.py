from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.system.apt_settings import read_apt, read_distribution
from tests.unit.system.settings_machine import machine, put

LIST = """\
# deb http://commented.example/debian bookworm main
deb http://one.example/debian bookworm main # the mirror
deb-src [ arch=amd64 signed-by=/usr/share/keyrings/x.gpg ] https://two.example:8443/debian bookworm main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb file:/srv/repository ./
rpm http://not-apt.example/ x y
"""
SOURCES = """\
# a comment
Types: deb
URIs: http://three.example/debian
  https://four.example/debian
# another
Suites: bookworm

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm

Types: deb
uris: ftp://five.example/debian
Suites: bookworm
"""


def urls(root: Path) -> list[tuple[str, str]]:
    return [tuple(url) for url in read_apt(machine(root)).urls]  # type: ignore[misc]


def test_lines_are_read_whatever_their_options(tmp_path: Path) -> None:
    put(tmp_path, "/etc/apt/sources.list", LIST)
    assert urls(tmp_path) == [
        ("http://one.example/debian", "/etc/apt/sources.list"),
        ("https://two.example:8443/debian", "/etc/apt/sources.list"),
    ]


def test_stanzas_are_read_but_for_disabled_ones(tmp_path: Path) -> None:
    put(tmp_path, "/etc/apt/sources.list.d/debian.sources", SOURCES)
    put(tmp_path, "/etc/apt/sources.list.d/more.list", "deb tor+https://six.example/ x y\n")
    put(tmp_path, "/etc/apt/sources.list.d/off.list.disabled", "deb http://off.example/ x y\n")
    assert [url for url, _ in urls(tmp_path)] == [
        "http://three.example/debian",
        "https://four.example/debian",
        "ftp://five.example/debian",
        "https://six.example/",
    ]


def test_a_list_of_mirrors_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "/etc/apt/sources.list", "deb mirror+file:/etc/apt/mirrors.txt bookworm main\n")
    put(
        tmp_path, "/etc/apt/mirrors.txt", "# best first\nhttp://near.example/debian priority:1\nhttps://far.example/d\n"
    )
    assert urls(tmp_path) == [
        ("http://near.example/debian", "/etc/apt/mirrors.txt"),
        ("https://far.example/d", "/etc/apt/mirrors.txt"),
    ]


@pytest.mark.parametrize("uri", ["mirror://list.example/m.txt", "mirror+http://list.example/m.txt"])
def test_of_a_list_that_is_fetched_its_host_is_told(tmp_path: Path, uri: str) -> None:
    put(tmp_path, "/etc/apt/sources.list", f"deb {uri} bookworm main\n")
    assert urls(tmp_path) == [("http://list.example/m.txt", "/etc/apt/sources.list")]


def test_other_transports_are_noted(tmp_path: Path) -> None:
    put(tmp_path, "/etc/apt/sources.list", "deb s3://bucket.example/ bookworm main\n")
    told = read_apt(machine(tmp_path))
    assert told.urls == []
    assert "a source by 's3' is passed over" in told.notes[0]


def test_no_sources_are_said(tmp_path: Path) -> None:
    assert "no source on a network" in read_apt(machine(tmp_path)).notes[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ID=debian\n", "debian"),
        ('NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n', "ubuntu"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "ubuntu"),
        ('ID="fedora"\n', None),
        ("", None),
    ],
)
def test_the_distribution_is_the_systems_own_or_what_it_is_like(tmp_path: Path, text: str, name: str | None) -> None:
    put(tmp_path, "/etc/os-release", text)
    assert read_distribution(machine(tmp_path)) == name
