"""An image is taken as it is only where everything it was made from is the same, and it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagebuild.manifest import describe_file
from imagebuild.recipe import Recipe
from imagebuild.unchanged import image_key, is_unchanged, note
from tests.unit.imagebuild.tree_lab import recipe

FILES = (
    "coworkd/app.py",
    "policies/seccomp.json",
    "pyproject.toml",
    "requirements/runtime.lock",
    "rootfs-build/init",
    "systemd/coworkd.service",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}\n")
    (tmp_path / "packages.tar").write_text("packages")
    return tmp_path / "checkout"


def key_of(checkout: Path, *, made: Recipe | None = None, presets: bytes = b"{}", compress: bool = True) -> str:
    packages = checkout.with_name("packages.tar")
    return image_key(made or recipe(), packages=packages, presets=presets, checkout=checkout, compress=compress)


@pytest.mark.parametrize("name", FILES)
def test_every_file_counts_by_content_and_by_whether_it_runs(checkout: Path, name: str) -> None:
    first = key_of(checkout)
    assert key_of(checkout) == first
    (checkout / name).chmod(0o755)
    second = key_of(checkout)
    (checkout / name).write_text("other\n")
    assert len({first, second, key_of(checkout)}) == 3


def test_what_else_decides_the_image_counts(checkout: Path) -> None:
    keys = {
        key_of(checkout),
        key_of(checkout, made=replace(recipe(), console_login=True)),
        key_of(checkout, presets=b'{"a": 1}'),
        key_of(checkout, compress=False),
    }
    checkout.with_name("packages.tar").write_text("newer packages")
    assert len({*keys, key_of(checkout)}) == 5


def test_where_python_leaves_its_byte_code_does_not_count(checkout: Path) -> None:
    first = key_of(checkout)
    (checkout / "rootfs-build" / "__pycache__").mkdir()
    (checkout / "rootfs-build" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert key_of(checkout) == first


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made = tmp_path / "image" / "x86_64"
    made.mkdir(parents=True)
    for name in ("vmlinuz", "rootfs.img", "rootfs.img.zst"):
        (made / name).write_text(f"this is {name}\n")
    artifacts = {"kernel": describe_file(made / "vmlinuz"), "rootfs": describe_file(made / "rootfs.img")}
    artifacts["rootfs"]["compressed"] = describe_file(made / "rootfs.img.zst")
    (made / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    note(made, "key")
    return made


def test_a_whole_image_of_the_same_key_is_unchanged(image: Path) -> None:
    assert is_unchanged(image, "key")
    assert not is_unchanged(image, "another")
    assert not is_unchanged(image.with_name("aarch64"), "key")


@pytest.mark.parametrize(
    "harm",
    [
        lambda image: (image / "vmlinuz").write_text("THIS is vmlinuz\n"),
        lambda image: (image / "rootfs.img.zst").unlink(),
        lambda image: (image / "more").write_text("x"),
        lambda image: (image / "manifest.json").write_text('{"artifacts": {}}'),
        lambda image: (image / "manifest.json").write_text("[]"),
        lambda image: (image / "manifest.json").write_bytes(b"\xff"),
        lambda image: image.with_name(".x86_64.made-from").unlink(),
        lambda image: image.with_name(".x86_64.made-from").write_text("{"),
    ],
)
def test_an_image_that_is_no_longer_what_it_was_is_built_again(image: Path, harm: Callable[[Path], object]) -> None:
    harm(image)
    assert not is_unchanged(image, "key")
