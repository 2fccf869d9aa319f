"""The image of an update disk: a signed release as a small exFAT or ext4 file system labelled `smol-bin`, made without mounting anything.

Rules
- What is written is what the manifest names and what is as the manifest says, hashes and all: a release that was changed after it was
  signed, or has a file too many, is told here and not only by the guest.
- The image appears whole or not at all: it is written beside its place, synced and renamed.
- exFAT needs no program. ext4 is made by mke2fs, from the same tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from coworkd.model.update import DISK_LABEL
from coworkd.release.manifest import MANIFEST, SIGNATURE, Manifest, parse_manifest
from coworkd.release.refusal import ReleaseRefused
from host_stub.exfat import ExfatFile, write_exfat
from host_stub.words import Trouble

Kind = Literal["exfat", "ext4"]
_CHUNK_BYTES = 1024 * 1024
_MIB = 1024 * 1024
_MKE2FS_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/opt/homebrew/opt/e2fsprogs/sbin:/usr/local/opt/e2fsprogs/sbin"


def write_update_disk(release: Path, image: Path, *, kind: Kind = "exfat") -> Manifest:
    """Make `image` of the signed `release`, over an older one. Raises `Trouble`."""
    manifest = check_release(release)
    half = image.with_name(f".{image.name}.{os.getpid()}")
    try:
        with half.open("xb") as out:
            if kind == "exfat":
                _write_exfat(release, manifest, out)
            else:
                _write_ext4(release, manifest, out)
            out.flush()
            os.fsync(out.fileno())
        half.replace(image)
    except ValueError as error:
        raise Trouble(
            "bad_release", f"{release} cannot become an update disk: {error}", remedy="sign it anew"
        ) from error
    except OSError as error:
        said = f"{image} cannot be written: {error.strerror or error}"
        raise Trouble("not_written", said, remedy="see to room and rights there") from error
    finally:
        half.unlink(missing_ok=True)
    return manifest


def check_release(release: Path) -> Manifest:
    """The manifest of what is in `release`, all of it as it says. The signature is the guest's to judge. Raises `Trouble`."""
    remedy = "sign it (again): `cowork-vm release sign`"
    try:
        (release / SIGNATURE).read_bytes()
        manifest = parse_manifest((release / MANIFEST).read_bytes())
        wanted = {MANIFEST, SIGNATURE, *(file.path for file in manifest.files)}
        found = {
            path.relative_to(release).as_posix()
            for path in release.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }
        for name in sorted(found ^ wanted):
            said = "is missing" if name in wanted else "is there, and is not in the manifest"
            raise Trouble("bad_release", f"{name} {said}", remedy=remedy)
        for file in manifest.files:
            path = release / file.path
            if path.is_symlink() or path.stat().st_size != file.size or _sha256(path) != file.sha256:
                raise Trouble("bad_release", f"{file.path} is not what was signed", remedy=remedy)
    except ReleaseRefused as refused:
        raise Trouble(refused.why, f"no guest would take it: {refused.message}", remedy=remedy) from refused
    except OSError as error:
        raise Trouble("unsigned", f"{error.filename} cannot be read: {error.strerror}", remedy=remedy) from error
    return manifest


def _write_exfat(release: Path, manifest: Manifest, out: BinaryIO) -> None:
    names = [MANIFEST, SIGNATURE, *(file.path for file in manifest.files)]
    files = {name: ExfatFile(size=(release / name).stat().st_size, chunks=_chunks(release / name)) for name in names}
    serial = zlib.crc32((release / MANIFEST).read_bytes())
    write_exfat(out, files, label=DISK_LABEL, serial=serial)


def _write_ext4(release: Path, manifest: Manifest, out: BinaryIO) -> None:
    program = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:{_MKE2FS_PATH}")
    if program is None:
        raise Trouble(
            "no_mke2fs", "there is no mke2fs on this machine", remedy="install e2fsprogs, or make an exFAT disk"
        )
    size = manifest.total_bytes + 4096 * len(manifest.files)
    out.truncate((size + size // 8 + 8 * _MIB) // _MIB * _MIB)
    # No journal: nobody ever writes there, and a guest could not replay one on a disk that is read-only.
    options = ("-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0", "-L", DISK_LABEL)
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            [program, *options, "-E", "root_owner=0:0", "-d", str(release), out.name],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            check=False,
        )
        said.seek(0)
        words = said.read(2000).decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise Trouble("not_written", f"mke2fs could not make the disk: {words}", remedy="see to room and rights there")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()
