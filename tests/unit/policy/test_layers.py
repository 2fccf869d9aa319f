"""`policy.layers`: which files count, and which are nobody's."""

from __future__ import annotations

import pytest

from coworkd.policy.layers import Layer, collect, find_strays, is_passed_over


def layer(*paths: str, root: str = "/l") -> Layer:
    return Layer(root=root, files={path: path.encode() for path in paths})


def test_a_layer_of_known_files_has_no_strays() -> None:
    assert find_strays(layer("ceiling.toml", "profiles/a.toml", "seccomp/b-1.json", "egress/c.json")) == []


@pytest.mark.parametrize(
    ("path", "close"),
    [
        ("ceilling.toml", "ceiling.toml"),
        ("profile/a.toml", "profiles"),
        ("profiles/a.json", None),
        ("profiles/sub/a.toml", None),
        ("seccomp/a.toml", None),
        ("profiles/Big.toml", None),
        ("profiles/.toml", None),
        ("extra/", None),
    ],
)
def test_a_file_nobody_reads_is_a_finding(path: str, close: str | None) -> None:
    (stray,) = find_strays(layer(path))
    assert stray.file == f"/l/{path}"
    assert stray.nearest == close


@pytest.mark.parametrize("name", [".git", "a.toml~", "a.toml.dpkg-old", "README", "README.md", "a.bak", "a.ucf-dist"])
def test_what_tools_leave_behind_is_passed_over(name: str) -> None:
    assert is_passed_over(name)


@pytest.mark.parametrize("name", ["a.toml", "ceiling.tml", "profiles", "a.toml.new"])
def test_anything_else_is_not_passed_over(name: str) -> None:
    assert not is_passed_over(name)


def test_collect_gives_files_of_a_name_lowest_layer_first() -> None:
    found = collect(
        [layer("egress/a.json", root="/low"), layer("egress/a.json", "egress/b.json", root="/high")], "egress"
    )
    assert {name: [file.file for file in files] for name, files in found.items()} == {
        "a": ["/low/egress/a.json", "/high/egress/a.json"],
        "b": ["/high/egress/b.json"],
    }
