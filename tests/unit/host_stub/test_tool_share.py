"""A tool of this host on its way through the share: copied, hashed, named, and gone afterwards."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from host_stub.tool_share import DIRECTORY, shared_tool
from host_stub.words import Trouble


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share" / "shared").mkdir(parents=True)
    return tmp_path / "share"


def test_a_file_of_the_host_is_in_the_share_meanwhile(share: Path, tmp_path: Path) -> None:
    file = tmp_path / "agent"
    file.write_bytes(b"tool")
    words = ["install", "agent", "1.0", str(file), "--no-switch"]
    with shared_tool(words, share) as given:
        assert given[:3] == words[:3]
        assert (share / "shared" / given[3]).read_bytes() == b"tool"
        assert given[4:] == ["--no-switch", "--sha256", hashlib.sha256(b"tool").hexdigest()]
    assert list((share / "shared").iterdir()) == []


def test_a_digest_that_is_given_is_not_replaced(share: Path, tmp_path: Path) -> None:
    file = tmp_path / "agent"
    file.write_bytes(b"tool")
    with shared_tool(["install", "--sha256", "ab" * 32, "agent", "1.0", str(file)], share) as given:
        assert given.count("--sha256") == 1
        assert given[2] == "ab" * 32


def test_what_lies_below_the_share_is_named_as_it_is(share: Path) -> None:
    (share / "shared" / "tools").mkdir()
    (share / "shared" / "tools" / "agent").write_bytes(b"x")
    words = ["install", "agent", "1.0", "tools/agent", "--sha256", "0" * 64]
    with shared_tool(words, share) as given:
        assert given == words


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        [],
        ["install"],
        ["install", "--help"],
        ["install", "agent", "1.0", "--sha256", "0" * 64],
        ["install", "a", "1", "/nowhere/at/all"],
    ],
)
def test_other_words_are_coworkctls(share: Path, words: list[str]) -> None:
    with shared_tool(words, share) as given:
        assert given == words


def test_the_same_directory_has_the_same_digest(share: Path, tmp_path: Path) -> None:
    digests = []
    for number in range(2):
        top = tmp_path / f"dir{number}"
        (top / "bin").mkdir(parents=True)
        (top / "bin" / "agent").write_bytes(b"#!/bin/sh\n")
        (top / "bin" / "agent").chmod(0o700 + number * 0o55)
        os.utime(top / "bin" / "agent", (number, number))
        (top / "link").symlink_to("bin/agent")
        with shared_tool(["install", "agent", "1.0", str(top)], share) as given:
            digests.append(given[-1])
            with tarfile.open(share / "shared" / given[3]) as tar:
                assert sorted(tar.getnames()) == ["bin", "bin/agent", "link"]
                assert {entry.uid for entry in tar} == {0}
    assert digests[0] == digests[1]


def test_a_share_that_takes_nothing_is_told(share: Path, tmp_path: Path) -> None:
    (share / "shared" / DIRECTORY).write_bytes(b"a file in the way")
    (tmp_path / "agent").write_bytes(b"x")
    with pytest.raises(Trouble) as caught, shared_tool(["install", "agent", "1", str(tmp_path / "agent")], share):
        pass
    assert caught.value.code == "cannot_share"


def test_what_fails_meanwhile_leaves_nothing(share: Path, tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"x")
    with pytest.raises(KeyError), shared_tool(["install", "agent", "1", str(tmp_path / "agent")], share):
        raise KeyError
    assert list((share / "shared").iterdir()) == []


@pytest.mark.parametrize("link", ["shared", f"shared/{DIRECTORY}"])
def test_a_link_that_a_guest_put_into_the_share_leads_nowhere(share: Path, tmp_path: Path, link: str) -> None:
    outside, file = tmp_path / "outside", tmp_path / "agent"
    (outside / DIRECTORY).mkdir(parents=True)
    file.write_bytes(b"tool")
    if link == "shared":
        (share / "shared").rmdir()
    (share / link).symlink_to(outside)
    with pytest.raises(Trouble) as caught, shared_tool(["install", "agent", "1.0", str(file)], share):
        pass
    assert caught.value.code == "cannot_share"
    assert [path for path in outside.rglob("*") if path.is_file()] == []


def test_the_copy_is_removed_where_it_was_made_though_the_guest_moved_the_directory(
    share: Path, tmp_path: Path
) -> None:
    outside, file = tmp_path / "outside", tmp_path / "agent"
    outside.mkdir()
    file.write_bytes(b"tool")
    directory = share / "shared" / DIRECTORY
    with shared_tool(["install", "agent", "1.0", str(file)], share) as given:
        name = Path(given[3]).name
        directory.rename(share / "shared/moved")
        directory.symlink_to(outside)
        (outside / name).write_bytes(b"mine")
    assert (outside / name).read_bytes() == b"mine"
    assert list((share / "shared/moved").iterdir()) == []
