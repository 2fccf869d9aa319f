"""The guest's image for tests: built once by rootfs-build, kept by the hash of what it is made from.

Kept below $COWORKD_IMAGE_CACHE, else ~/.cache/coworkd-vm-tests: `images/HASH/ARCH/`. What was not used for a week is removed.
$COWORKD_TEST_IMAGE names a directory with ARCH/ below it that is taken as it is, for whoever works on the image itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from host_stub.words import Architecture

REPO = Path(__file__).resolve().parents[2]
_INPUTS = ("coworkd", "policies", "pyproject.toml", "requirements", "rootfs-build", "systemd")
_KEPT_S = 7 * 24 * 3600
_BUILD_TIMEOUT_S = 900


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One built image. Nothing of it is ever written."""

    architecture: Architecture
    directory: Path
    command_line: str

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def rootfs(self) -> Path:
        return self.directory / "rootfs.img"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"


def image_of(architecture: Architecture) -> Image:
    """The image, built where it is not there yet. Raises AssertionError with the builder's last words."""
    given = os.environ.get("COWORKD_TEST_IMAGE")
    if given is not None:
        return read_image(architecture, Path(given, architecture))
    cache = Path(os.environ.get("COWORKD_IMAGE_CACHE") or Path.home() / ".cache" / "coworkd-vm-tests")
    kept = cache / "images"
    kept.mkdir(parents=True, exist_ok=True)
    place = kept / hash_of_inputs()
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / architecture / "manifest.json").exists():
            _build(architecture, place, cache)
        place.touch()
        _forget_old(kept, place)
    return read_image(architecture, place / architecture)


def read_image(architecture: Architecture, directory: Path) -> Image:
    words = msgspec.json.decode((directory / "manifest.json").read_bytes())
    assert words["architecture"] == architecture
    return Image(architecture=architecture, directory=directory, command_line=words["command_line"])


def hash_of_inputs() -> str:
    """Of the names, modes and contents of all files an image is made from."""
    digest = hashlib.sha256()
    for name in _INPUTS:
        top = REPO / name
        files = (
            [top]
            if top.is_file()
            else sorted(path for path in top.rglob("*") if path.is_file() and not path.is_symlink())
        )
        for path in files:
            if "__pycache__" in path.parts:
                continue
            data = path.read_bytes()
            digest.update(f"{path.relative_to(REPO)}\0{path.stat().st_mode & 0o111}\0{len(data)}\0".encode())
            digest.update(data)
    return digest.hexdigest()[:24]


def _build(architecture: Architecture, place: Path, cache: Path) -> None:
    """Into a directory beside, then renamed: half an image is none. The builder's own cache is kept between images."""
    part = place.with_suffix(f".part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    words = ["--no-compress", "--arch", architecture, "--output", str(part)]
    command = [sys.executable, str(REPO / "rootfs-build" / "build"), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, stdin=subprocess.DEVNULL, cwd=REPO
        )
        assert done.returncode == 0, f"the image was not built:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        place.mkdir(exist_ok=True)
        (part / architecture).rename(place / architecture)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _forget_old(kept: Path, place: Path) -> None:
    for other in kept.iterdir():
        if other.is_dir() and other != place and other.stat().st_mtime < time.time() - _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
