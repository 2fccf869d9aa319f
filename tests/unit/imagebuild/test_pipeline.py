"""The stages that need no archive: from a system's tar to the files of an image. tests/vm boots a whole one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from host_stub.manifest import parse_manifest
from imagebuild import pipeline
from imagebuild.cache import Cache
from imagebuild.manifest import describe_file
from imagebuild.run import require
from imagebuild.tree import pack
from tests.unit.imagebuild.test_uki import make_stub
from tests.unit.imagebuild.tree_lab import make_tree, recipe


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages without an archive, a system without packages, a tree with nothing of ours but a file."""

    def fetch(*_args: object, cache: Cache, **_more: object) -> Path:
        path = cache.directory / "packages.tar"
        if not path.exists():
            path.write_bytes(b"packages")
        return path

    def make_system(_recipe: object, _packages: Path, path: Path) -> None:
        content: dict[str, str | bytes] = {
            "boot/vmlinuz": b"kernel",
            "boot/stub": make_stub(),
            "boot/modules": "usr/lib/modules/6/kernel/x.ko\n",
            "usr/lib/modules/6/kernel/x.ko": b"module",
            "usr/bin/busybox": b"box" * 1000,
            "usr/lib/os-release": "NAME=test\n",
        }
        tree = make_tree(path.parent / "tree", content)
        tree.settle(7)
        pack(tree, path)

    monkeypatch.setattr(pipeline, "fetch_packages", fetch)
    monkeypatch.setattr(pipeline, "read_package_versions", lambda _tar: [("bash", "5")])
    monkeypatch.setattr(pipeline, "_make_system", make_system)
    monkeypatch.setattr(pipeline, "fetch_wheels", lambda *_args, **_more: Path("none"))
    monkeypatch.setattr(pipeline, "resolve_presets", lambda *_args, **_more: b"{}")
    monkeypatch.setattr(
        pipeline, "finish_tree", lambda tree, made, _wheels, **_more: tree.settle(made.source_date_epoch)
    )


def build(tmp_path: Path, name: str) -> tuple[Path, list[str]]:
    said: list[str] = []
    settings = pipeline.Build(cache=Cache(tmp_path / f"cache-{name}"), output=tmp_path / name, say=said.append)
    return pipeline.build_image(recipe(), settings), said


@pytest.mark.usefixtures("small")
def test_an_image_is_what_its_manifest_says_and_the_same_each_time(tmp_path: Path) -> None:
    one, said = build(tmp_path, "one")
    two, _ = build(tmp_path, "two")
    assert one == tmp_path / "one" / "x86_64"
    assert [line.split()[0] for line in said] == ["packages", "system", "tree", "rootfs", "boot", "manifest"]
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()
    manifest = parse_manifest((one / "manifest.json").read_bytes(), source="x")
    for role, artifact in {**manifest.needed("kernel"), **manifest.needed("efi")}.items():
        assert describe_file(one / artifact.file)["sha256"] == artifact.sha256, role
    disk = manifest.artifacts.disk
    assert disk is not None
    assert disk.compressed is not None
    unpacked = subprocess.run(
        [require("zstd"), "-dcq", str(one / disk.compressed.file)], capture_output=True, check=True
    )
    assert unpacked.stdout == (one / disk.file).read_bytes()


@pytest.mark.usefixtures("small")
def test_an_old_image_is_replaced_as_a_whole(tmp_path: Path) -> None:
    old = tmp_path / "one" / "x86_64"
    old.mkdir(parents=True)
    (old / "left-over").write_text("x")
    assert build(tmp_path, "one")[0] == old
    assert not (old / "left-over").exists()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [".x86_64.made-from", "x86_64"]
    assert (old / "vmlinuz").read_bytes() == b"kernel"


@pytest.mark.usefixtures("small")
def test_what_would_be_the_same_again_is_left_as_it_is(tmp_path: Path) -> None:
    one, _ = build(tmp_path, "one")
    inode = one.stat().st_ino
    again, said = build(tmp_path, "one")
    assert (again, again.stat().st_ino) == (one, inode)
    assert said[-1].startswith("unchanged")
    with (one / "rootfs.img").open("r+b") as stream:
        stream.write(b"changed")
    mended, said = build(tmp_path, "one")
    assert mended.stat().st_ino != inode
    assert said[-1].startswith("manifest")
    assert build(tmp_path, "one")[1][-1].startswith("unchanged")
