from __future__ import annotations

from pathlib import Path

import pytest

from imagebuild.recipe import SUITES
from imagebuild.sources import compose_mirror_sources, find_own_sources
from imagebuild.trouble import Trouble

BOOKWORM = SUITES["bookworm"]
STANZAS = """# a comment
Types: deb
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Architectures: amd64

Types: deb
URIs: http://other.test/
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.test/
Suites: bookworm

Types: deb-src
URIs: http://source.test/
Suites: bookworm
"""


def test_a_mirror_is_asked_for_the_suite_and_its_updates() -> None:
    (text,) = compose_mirror_sources(["http://mirror.test/x"], SUITES["jammy"], keyring="/k.gpg")
    assert text.splitlines() == [
        "deb [signed-by=/k.gpg] http://mirror.test/x jammy main universe",
        "deb [signed-by=/k.gpg] http://mirror.test/x jammy-updates main universe",
    ]


def test_a_whole_line_is_taken_as_it_is() -> None:
    assert compose_mirror_sources(["deb http://m.test/ bookworm-security main"], BOOKWORM) == (
        "deb http://m.test/ bookworm-security main\n",
    )
    assert compose_mirror_sources([], BOOKWORM) == ()


@pytest.mark.parametrize("mirror", ["mirror.test", "ftp://x", "http://a b", "http://x\ndeb y"])
def test_what_is_no_mirror_is_refused(mirror: str) -> None:
    with pytest.raises(Trouble, match="neither the URL"):
        compose_mirror_sources([mirror], BOOKWORM)


def test_only_this_machine_s_sources_of_the_suite_are_taken(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(STANZAS)
    (parts / "x.list").write_text(
        "deb [arch=amd64] http://line.test/ bookworm-backports main\ndeb http://y.test/ trixie main\n# deb x\n"
    )
    (parts / "y.list.off").write_text("deb http://off.test/ bookworm main\n")
    (tmp_path / "sources.list").write_text("")
    first, second = find_own_sources(BOOKWORM, directory=tmp_path)
    assert first.count("Types:") == 1
    assert "http://mirror.test/debian" in first
    assert "Architectures" not in first
    assert second == "deb [arch=amd64] http://line.test/ bookworm-backports main\n"


def test_a_suite_this_machine_does_not_have_wants_a_mirror(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="name a mirror by --mirror"):
        find_own_sources(SUITES["jammy"], directory=tmp_path)
