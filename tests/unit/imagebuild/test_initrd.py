from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagebuild.initrd import compose_initrd
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_elf, make_tree, recipe

MODULES = ("usr/lib/modules/6.1/kernel/b/virtio.ko", "usr/lib/modules/6.1/kernel/a/virtio_blk.ko")
LIB = "usr/lib/x86_64-linux-gnu"


def make(root: Path, **more: bytes | str) -> Tree:
    return make_tree(root, {"usr/bin/busybox": b"box", **dict.fromkeys(MODULES, b"module"), **more})


def listed(archive: bytes) -> set[str]:
    said = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    return set(said.stdout.decode().split())


def test_it_holds_what_leads_to_the_root(tmp_path: Path) -> None:
    archive = compose_initrd(make(tmp_path), recipe(), script=b"#!/bin/sh\n", modules=MODULES)
    names = listed(archive)
    assert {"init", "bin/busybox", "bin/sh", "bin/switch_root", "dev/console", "modules/virtio.ko"} <= names
    assert b"virtio.ko\nvirtio_blk.ko\n" in archive
    assert not [name for name in names if "dmsetup" in name]


def test_what_checks_the_root_comes_with_its_libraries(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        **{
            "usr/sbin/dmsetup": make_elf(needed=("libdevmapper.so.1",)),
            f"{LIB}/libdevmapper.so.1": make_elf(soname="libdevmapper.so.1", needed=("libc.so.6",)),
            f"{LIB}/libc.so.6": make_elf(soname="libc.so.6"),
            f"{LIB}/ld-linux-x86-64.so.2": make_elf(),
        },
    )
    names = listed(compose_initrd(tree, recipe(verity=True), script=b"", modules=MODULES))
    assert {
        "bin/dmsetup",
        "lib/x86_64-linux-gnu/libdevmapper.so.1",
        "lib/x86_64-linux-gnu/libc.so.6",
        "lib64/ld-linux-x86-64.so.2",
    } <= names


def test_a_library_that_is_missing_is_told_at_the_build_and_not_at_the_boot(tmp_path: Path) -> None:
    tree = make(
        tmp_path, **{"usr/sbin/dmsetup": make_elf(needed=("libgone.so",)), f"{LIB}/ld-linux-x86-64.so.2": make_elf()}
    )
    with pytest.raises(Trouble, match=r"needs libgone\.so"):
        compose_initrd(tree, recipe(verity=True), script=b"", modules=MODULES)


def test_the_script_is_one_that_a_shell_reads() -> None:
    script = Path(__file__).resolve().parents[3] / "rootfs-build" / "init"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
