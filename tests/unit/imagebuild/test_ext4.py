from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imagebuild.ext4 import compose_debugfs, measure, write_ext4
from imagebuild.run import require
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_tree

EPOCH = 1_700_000_000


def make(root: Path, order: int) -> Tree:
    tree = make_tree(root, {})
    for number in sorted(range(40), reverse=bool(order)):
        tree.write(f"usr/bin/tool-{number}", f"{number}" * 3000, mode=0o755)
    tree.write("etc/shadow", "secret", mode=0o640, owner=(0, 42))
    tree.link("etc/long", "x" * 200)
    os.link(root / "usr/bin/tool-1", root / "usr/bin/other-name")
    tree.settle(EPOCH)
    return tree


def debugfs(image: Path, command: str) -> str:
    return subprocess.run(
        [require("debugfs"), "-R", command, str(image)], capture_output=True, text=True, check=True
    ).stdout


def test_the_same_tree_is_the_same_image_wherever_and_whenever_it_lies(tmp_path: Path) -> None:
    for order, name in enumerate(("one", "two")):
        write_ext4(make(tmp_path / name, order), tmp_path / f"{name}.img", epoch=EPOCH)
    assert (tmp_path / "one.img").read_bytes() == (tmp_path / "two.img").read_bytes()


def test_the_image_is_whole_and_has_the_owners(tmp_path: Path) -> None:
    image = tmp_path / "image"
    write_ext4(make(tmp_path / "tree", 0), image, epoch=EPOCH)
    checked = subprocess.run([require("e2fsck"), "-fn", str(image)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    shadow = debugfs(image, "stat /etc/shadow")
    assert "Mode:  0640" in shadow
    assert "Group:    42" in shadow
    assert debugfs(image, "stat /usr/bin/tool-1").count("Links: 2") == 1
    assert "cowork-root" in debugfs(image, "show_super_stats -h")


def test_little_is_left_over(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {f"f{number}": b"x" * 100_000 for number in range(100)})
    blocks, inodes = measure(tree)
    assert 2500 <= blocks <= 2800
    assert 100 <= inodes <= 150


def test_a_name_debugfs_cannot_be_told_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {'a"b': ""})
    with pytest.raises(Trouble, match="cannot be told"):
        compose_debugfs(tree, EPOCH)
