"""The image in a bundle: checked, mended, refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from host_stub import bundle_files, bundle_image
from host_stub.bundle import Bundle
from host_stub.bundle_files import no_progress
from host_stub.manifest import Artifact, Stored
from host_stub.words import Trouble
from tests.unit.host_stub.image_lab import PARTS, make_bundle, stored

ROOT = PARTS["rootfs"][1]


def check(bundle: Bundle) -> tuple[str, ...]:
    return bundle_image.check_artifacts(bundle.path, bundle.manifest.needed("kernel"), no_progress)


def flip(path: Path, offset: int = 5) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 100)


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


SPOILERS = pytest.mark.parametrize("spoil", [flip, cut, remove, link])


def test_a_whole_image_is_left_alone(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    before = (bundle.path / "rootfs.img").stat()
    assert check(bundle) == ()
    after = (bundle.path / "rootfs.img").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert before.st_mode & 0o777 == 0o400
    assert before.st_blocks * 512 < len(ROOT)  # its zeros take no room


@SPOILERS
def test_a_damaged_root_is_made_again(bundle: Bundle, spoil: Callable[[Path], None]) -> None:
    spoil(bundle.path / "rootfs.img")
    (said,) = check(bundle)
    assert "made again from rootfs.img.zst" in said
    assert (bundle.path / "rootfs.img").read_bytes() == ROOT
    assert not (bundle.path / "rootfs.img").is_symlink()
    assert check(bundle) == ()


@pytest.mark.parametrize("mark", ["", "0" * 64, "\xff"])
def test_a_root_of_another_original_is_made_again(bundle: Bundle, mark: str) -> None:
    (bundle.path / "rootfs.img.origin").write_text(mark, "latin-1")
    (said,) = check(bundle)
    assert "of what it was made from" in said or "from another original" in said


def test_the_origin_names_the_original(bundle: Bundle) -> None:
    artifact = bundle.manifest.artifacts.rootfs
    assert artifact is not None
    assert artifact.compressed is not None
    assert (bundle.path / "rootfs.img.origin").read_text() == f"{artifact.compressed.sha256}\n"


@SPOILERS
@pytest.mark.parametrize("name", ["vmlinuz", "initrd.img"])
def test_a_damaged_kernel_is_not_booted(bundle: Bundle, name: str, spoil: Callable[[Path], None]) -> None:
    spoil(bundle.path / name)
    with pytest.raises(Trouble, match=name) as caught:
        check(bundle)
    assert (caught.value.code, "cowork-vm renew" in caught.value.remedy) == ("damaged_image", True)


@SPOILERS
def test_a_damaged_original_makes_nothing(bundle: Bundle, spoil: Callable[[Path], None]) -> None:
    remove(bundle.path / "rootfs.img")
    spoil(bundle.path / "rootfs.img.zst")
    with pytest.raises(Trouble) as caught:
        check(bundle)
    assert caught.value.code == "damaged_image"
    assert not (bundle.path / "rootfs.img").exists()
    assert not (bundle.path / ".rootfs.img.new").exists()


@pytest.mark.parametrize(
    "packed",
    [
        zstandard.compress(ROOT + b"more"),
        zstandard.compress(ROOT[:-1]),
        zstandard.compress(ROOT)[:-9],
        zstandard.compress(ROOT[:-1] + b"x"),
        b"no zstd at all",
    ],
    ids=["longer", "shorter", "cut", "other", "rubbish"],
)
def test_an_original_that_holds_something_else_makes_nothing(tmp_path: Path, packed: bytes) -> None:
    """Its own digest is right: whoever made the manifest made it of something else."""
    (tmp_path / "rootfs.img.zst").write_bytes(packed)
    fields = {**stored("rootfs.img", ROOT), "compressed": stored("rootfs.img.zst", packed)}
    artifact = Artifact(**{**fields, "compressed": Stored(**fields["compressed"])})
    with pytest.raises(Trouble) as caught:
        bundle_image.check_artifacts(tmp_path, {"rootfs": artifact}, no_progress)
    assert caught.value.code == "damaged_image"
    assert os.listdir(tmp_path) == ["rootfs.img.zst"]


def test_a_full_disk_is_told_before_and_keeps_what_is_there(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(bundle.path / "rootfs.img")
    monkeypatch.setattr(bundle_files, "SPARE_BYTES", 1 << 60)
    with pytest.raises(Trouble) as caught:
        check(bundle)
    assert caught.value.code == "no_space"
    assert (bundle.path / "rootfs.img").exists()
    assert (bundle.path / "rootfs.img.zst").exists()
