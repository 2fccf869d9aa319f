from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from imagebuild.tree import Tree, merged, merged_target, pack, unpack
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_tree


def make_tar(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """Of each member: name, tar's kind, and a file's content or where a link leads."""
    with tarfile.open(path, "w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                member.size, member.gid, member.mode = len(content), 42, 0o4755
                tar.addfile(member, io.BytesIO(content.encode()))
            else:
                member.linkname = content
                tar.addfile(member)
    return path


def test_usr_is_merged_whatever_packages_say(tmp_path: Path) -> None:
    tar = make_tar(
        tmp_path / "a.tar",
        ("./bin", tarfile.DIRTYPE, ""),
        ("./bin/su", tarfile.REGTYPE, "su"),
        ("./lib64/ld.so.2", tarfile.SYMTYPE, "/lib/x/ld.so.2"),
        ("./sbin/tool", tarfile.SYMTYPE, "../usr/bin/other"),
        ("./dev/null", tarfile.CHRTYPE, ""),
        ("./bin/hard", tarfile.LNKTYPE, "./bin/su"),
    )
    tree = Tree(tmp_path / "tree")
    unpack(tar, tree)
    assert tree.path("bin").readlink() == Path("usr/bin")
    assert tree.path("lib64").readlink() == Path("usr/lib64")
    assert tree.path("usr/sbin/tool").readlink() == Path("../bin/other")
    assert tree.path("usr/bin/su").stat().st_mode & 0o7777 == 0o4755
    assert tree.owners["usr/bin/su"] == (0, 42)
    assert tree.path("usr/bin/hard").samefile(tree.path("usr/bin/su"))
    assert not tree.exists("dev/null")


@pytest.mark.parametrize(
    ("name", "target", "meant"),
    [
        ("bin/a", "b", "b"),
        ("bin/a", "/bin/b", "/bin/b"),
        ("sbin/a", "../bin/b", "../bin/b"),
        ("lib/x/a.so", "../../usr/lib/a.so", "../a.so"),
        ("usr/lib/a", "../../lib/b", "../../lib/b"),
    ],
)
def test_links_lead_where_they_led(name: str, target: str, meant: str) -> None:
    assert merged_target(name, target) == meant


def test_only_directories_of_the_root_are_merged() -> None:
    assert [merged(name) for name in ("bin/x", "lib64/y", "usr/bin/x", "library/x", "lib")] == [
        "usr/bin/x",
        "usr/lib64/y",
        "usr/bin/x",
        "library/x",
        "usr/lib",
    ]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x"])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(Trouble, match="no name in the tree"):
        Tree(tmp_path).path(name)


def test_no_step_follows_a_link(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {})
    tree.link("etc", str(tmp_path))
    with pytest.raises(Trouble, match="symbolic link"):
        tree.write("etc/passwd", "mine")
    assert not (tmp_path / "passwd").exists()


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    tree = make_tree(tmp_path / "tree", {})
    tree.link("etc/resolv.conf", str(outside))
    tree.write("etc/resolv.conf", "new")
    assert outside.read_text() == "kept"
    assert tree.read("etc/resolv.conf") == "new"


def test_packing_and_unpacking_keep_everything(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "one", {"usr/bin/a": "a"})
    tree.write("etc/shadow", "s", mode=0o640, owner=(0, 42))
    tree.link("usr/bin/b", "a")
    os.link(tree.path("usr/bin/a"), tree.path("usr/bin/c"))
    tree.directory("tmp", mode=0o1777)
    tree.settle(1000)
    pack(tree, tmp_path / "one.tar")
    again = Tree(tmp_path / "two")
    unpack(tmp_path / "one.tar", again)
    assert set(tree.names()) <= set(again.names())
    assert again.owners == {"etc/shadow": (0, 42)}
    assert again.path("usr/bin/c").samefile(again.path("usr/bin/a"))
    assert again.path("tmp").stat().st_mode & 0o7777 == 0o1777


def test_what_is_removed_takes_its_owners_along(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})
    tree.write("a/b", "", owner=(1, 1))
    tree.remove("a")
    tree.remove("a")
    assert tree.owners == {}
    assert list(tree.names()) == []


def test_all_is_of_one_time(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"a/b": ""})
    tree.link("a/c", "nowhere")
    tree.settle(1234)
    assert {(tmp_path / name).lstat().st_mtime for name in tree.names()} == {1234.0}
