from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.release.manifest import MANIFEST
from host_stub.update_disk import check_release, write_update_disk
from host_stub.words import Trouble
from tests.unit.host_stub.test_exfat import Reader
from tests.unit.release.release_house import CODE, release, write_release

FILES = release({**CODE, "policies/egress/default.json": b"{}"}, version="1.2")


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    write_release(tmp_path / "release", FILES)
    return tmp_path / "release"


def test_an_exfat_disk_holds_the_release(tmp_path: Path, signed: Path) -> None:
    image = tmp_path / "update.img"
    assert write_update_disk(signed, image).version == "1.2"
    assert Reader(image.read_bytes()).files() == FILES
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_ext4_disk_holds_the_release(tmp_path: Path, signed: Path) -> None:
    image = tmp_path / "update.img"
    write_update_disk(signed, image, kind="ext4")
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin")
    assert debugfs is not None
    for path, data in FILES.items():
        done = subprocess.run([debugfs, "-R", f"cat /{path}", str(image)], capture_output=True, check=True)
        assert done.stdout == data
    fsck = shutil.which("e2fsck", path="/usr/sbin:/sbin:/usr/bin")
    assert fsck is not None
    assert subprocess.run([fsck, "-fn", str(image)], capture_output=True, check=False).returncode == 0


def test_an_older_image_is_replaced(tmp_path: Path, signed: Path) -> None:
    image = tmp_path / "update.img"
    image.write_bytes(b"old")
    write_update_disk(signed, image)
    assert image.stat().st_size > 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda top: (top / "manifest.json.minisig").unlink(),
        lambda top: (top / MANIFEST).write_bytes(b"{}"),
        lambda top: (top / "code" / "coworkd" / "app.py").write_bytes(b"y" * 3000),
        lambda top: (top / "code" / "coworkd" / "app.py").unlink(),
        lambda top: (top / "code" / "more.py").write_bytes(b""),
        lambda top: (top / "code" / "link").symlink_to("coworkd"),
    ],
    ids=["unsigned", "no manifest", "changed", "missing", "extra", "link"],
)
def test_what_was_changed_after_it_was_signed_is_told(
    tmp_path: Path, signed: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(signed)
    with pytest.raises(Trouble):
        write_update_disk(signed, tmp_path / "update.img")
    assert not (tmp_path / "update.img").exists()


def test_a_place_that_is_not_there_is_told(tmp_path: Path, signed: Path) -> None:
    with pytest.raises(Trouble) as trouble:
        write_update_disk(signed, tmp_path / "none" / "update.img")
    assert trouble.value.code == "not_written"
    assert check_release(signed).version == "1.2"
