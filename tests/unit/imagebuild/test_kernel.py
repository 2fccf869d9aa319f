from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from imagebuild import kernel
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_tree

DEPENDENCIES = {
    "kernel/drivers/block/virtio_blk.ko": ("kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko"),
    "kernel/drivers/virtio/virtio_ring.ko": ("kernel/drivers/virtio/virtio.ko",),
    "kernel/drivers/virtio/virtio.ko": (),
    "kernel/fs/xfs/xfs.ko": ("kernel/lib/libcrc32c.ko",),
    "kernel/lib/libcrc32c.ko": (),
}


def test_what_a_module_needs_comes_before_it() -> None:
    assert kernel.choose_modules(DEPENDENCIES, ("virtio-blk",)) == (
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/virtio/virtio_ring.ko",
        "kernel/drivers/block/virtio_blk.ko",
    )


def test_patterns_are_of_paths_below_kernel() -> None:
    assert kernel.choose_modules(DEPENDENCIES, ("fs/xfs/*",)) == ("kernel/lib/libcrc32c.ko", "kernel/fs/xfs/xfs.ko")
    assert kernel.choose_modules(DEPENDENCIES, ("nothing",)) == ()


def test_the_list_says_who_loads_what() -> None:
    wanted = kernel.parse_module_list("# x\ninitrd: overlay # y\nverity: dm_verity\nfs/exfat/*\n\n")
    assert wanted == kernel.ModuleList(initrd=("overlay",), verity=("dm_verity",), root=("fs/exfat/*",))


def test_the_dependencies_are_read() -> None:
    text = "kernel/a.ko: kernel/b.ko.xz kernel/c.ko\nkernel/c.ko:\n"
    assert kernel.parse_dependencies(text) == {"kernel/a.ko": ("kernel/b.ko.xz", "kernel/c.ko"), "kernel/c.ko": ()}
    assert kernel.module_name("kernel/x/snd-pcm.ko.zst") == "snd_pcm"


@pytest.mark.parametrize("versions", [(), ("6.1", "6.8")])
def test_an_image_has_one_kernel(tmp_path: Path, versions: tuple[str, ...]) -> None:
    tree = make_tree(tmp_path, {f"usr/lib/modules/{version}/x": "" for version in versions})
    with pytest.raises(Trouble, match="an image has one kernel"):
        kernel.kernel_version(tree)


def test_the_kernel_is_the_one_of_its_modules(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/lib/modules/6.1/x": "", "boot/vmlinuz-6.1": b"MZ"})
    assert kernel.take_kernel(tree) == b"MZ"
    tree.remove("boot/vmlinuz-6.1")
    with pytest.raises(Trouble, match="no vmlinuz-6"):
        kernel.take_kernel(tree)


def test_a_compressed_module_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(b"module"))
    (tmp_path / "b.ko").write_bytes(b"plain")
    assert [kernel.read_module(tmp_path / name) for name in ("a.ko.xz", "b.ko")] == [b"module", b"plain"]


def test_modules_nobody_wants_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{path}: {' '.join(needs)}\n" for path, needs in DEPENDENCIES.items())
    here = "usr/lib/modules/6.1"
    tree = make_tree(tmp_path, {f"{here}/modules.dep": text, **{f"{here}/{path}": "" for path in DEPENDENCIES}})
    commands: list[list[str]] = []
    monkeypatch.setattr(kernel, "run", commands.append)
    wanted = kernel.ModuleList(initrd=("virtio",), verity=("libcrc32c",), root=("virtio_ring",))
    assert kernel.keep_modules(tree, wanted, verity=False) == (f"{here}/kernel/drivers/virtio/virtio.ko",)
    left = {path.name for path in (tmp_path / here).rglob("*.ko")}
    assert left == {"virtio.ko", "virtio_ring.ko"}
    assert not tree.exists(f"{here}/kernel/fs")
    assert [command[0] for command in commands] == ["depmod", "depmod"]
