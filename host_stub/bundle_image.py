"""The image in a bundle: brought in, checked against its manifest before each boot, and mended from its compressed original.

Rules
- Before each boot every byte of what is booted is hashed. There is no cache of "checked at that time": a file's times can be set back by
  whoever changed it, and a changed root file system is what this looks for.
- A root that differs (changed, cut off, gone, or made from another original than the manifest names: `NAME.origin`) is made again
  from the compressed original, which is itself checked, first as it lies there and then by what comes out of it.
- Kernel and initrd are small and have no compressed original: one that differs is a trouble, and `renew` brings it back.
- Nothing is booted that was not checked, and a half-made file never has the name of a whole one.

zstd is read by the library `zstandard`, imported where it is needed. Blocking. Source: RFC 8878 for the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from host_stub.bundle_files import (
    PIECE_BYTES,
    Progress,
    hash_file,
    read_pieces,
    require_room,
    shown_bytes,
    telling,
    write_whole,
)
from host_stub.manifest import Artifact, Stored
from host_stub.words import Trouble

_READ_ONLY = 0o400
_RENEW = "bring the image in again: cowork-vm renew --image DIR"


def import_artifacts(source: Path, target: Path, artifacts: Mapping[str, Artifact], progress: Progress) -> None:
    """Copy what is needed from an image's directory, checked as it is copied. Raises `Trouble`; files there before are replaced whole."""
    originals = {name: _original_of(artifact) for name, artifact in artifacts.items()}
    wanted = sum(original.size for original in originals.values()) + sum(
        artifact.size for artifact in artifacts.values() if artifact.compressed is not None
    )
    require_room(target, wanted, what="the image")
    for original in originals.values():
        _copy_checked(source / original.file, target / original.file, original, progress)
    for artifact in artifacts.values():
        if artifact.compressed is not None:
            _unpack(target, artifact, artifact.compressed, progress)


def check_artifacts(directory: Path, artifacts: Mapping[str, Artifact], progress: Progress) -> tuple[str, ...]:
    """Check each, mend what can be mended; returns a sentence for each that was. Raises `Trouble` (`damaged_image`, `no_space`)."""
    mended = []
    for artifact in artifacts.values():
        flaw = _flaw_of(directory, artifact, progress)
        if flaw is None:
            continue
        if artifact.compressed is None:
            raise Trouble("damaged_image", f"{directory / artifact.file} {flaw}", remedy=_RENEW)
        require_room(directory, artifact.size, what=f"making {artifact.file} again")
        _unpack(directory, artifact, artifact.compressed, progress)
        mended.append(f"{artifact.file} {flaw}: it was made again from {artifact.compressed.file}")
    return tuple(mended)


def find_flaws(directory: Path, artifacts: Mapping[str, Artifact], progress: Progress) -> dict[str, str]:
    """What is wrong with which artefact, as the end of a sentence; nothing is mended."""
    found = {name: _flaw_of(directory, artifact, progress) for name, artifact in artifacts.items()}
    return {name: flaw for name, flaw in found.items() if flaw is not None}


def _original_of(artifact: Artifact) -> Stored:
    return artifact if artifact.compressed is None else artifact.compressed


def _flaw_of(directory: Path, artifact: Artifact, progress: Progress) -> str | None:
    """What is wrong with an artefact as it lies there, as the end of a sentence; None where nothing is."""
    if artifact.compressed is not None:
        origin = _read_origin(directory / f"{artifact.file}.origin")
        if origin is None:
            return "has no mark of what it was made from"
        if origin != artifact.compressed.sha256:
            return "was made from another original than the manifest names"
    return _difference(directory / artifact.file, artifact, progress)


def _difference(path: Path, stored: Stored, progress: Progress) -> str | None:
    with telling("reading", path):
        try:
            if path.is_symlink() or not path.is_file():
                return "is missing" if not path.is_symlink() and not path.exists() else "is no plain file"
            size = path.stat().st_size
            if size != stored.size:
                return f"has {shown_bytes(size)} where the manifest says {shown_bytes(stored.size)}"
            digest = hash_file(path, f"checking {stored.file}", progress)[1]
        except FileNotFoundError:
            return "is missing"
    return None if digest == stored.sha256 else "differs from its SHA-256 in the manifest"


def _read_origin(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _copy_checked(source: Path, target: Path, stored: Stored, progress: Progress) -> None:
    with telling("reading", source):
        flaw = _difference(source, stored, progress)
    if flaw is not None:
        raise Trouble("damaged_image", f"{source} {flaw}", remedy="build the image again, or copy it again whole")
    with telling("writing", target):
        write_whole(target, read_pieces(source, f"copying {stored.file}", progress), mode=_READ_ONLY)
    flaw = _difference(target, stored, progress)  # what was read the second time may be something else
    if flaw is not None:
        target.unlink(missing_ok=True)
        raise Trouble("damaged_image", f"{target} {flaw} after it was copied", remedy="look at the disk, and try again")


def _unpack(directory: Path, artifact: Artifact, original: Stored, progress: Progress) -> None:
    """Make the artefact from its compressed original, and then say so in `.origin`."""
    packed, target = directory / original.file, directory / artifact.file
    flaw = _difference(packed, original, progress)
    if flaw is not None:
        raise Trouble("damaged_image", f"{packed}, which {target.name} is made from, {flaw}", remedy=_RENEW)
    with telling("writing", target):
        write_whole(target, _unpacked(packed, artifact, progress), mode=_READ_ONLY)
    flaw = _difference(target, artifact, progress)
    if flaw is not None:
        target.unlink(missing_ok=True)
        raise Trouble("damaged_image", f"{target}, made from {packed.name}, {flaw}", remedy=_RENEW)
    with telling("writing", target):
        write_whole(target.with_name(f"{target.name}.origin"), [f"{original.sha256}\n".encode()])


def _unpacked(packed: Path, artifact: Artifact, progress: Progress) -> Iterator[bytes]:
    """The bytes of a zstd file, never more than the manifest says there are."""
    try:
        import zstandard
    except ImportError as error:
        raise Trouble(
            "no_zstandard",
            "the image is compressed with zstd, and the library for it is not there",
            remedy="install cowork-vm with its extra: pip install 'coworkd[host]'",
        ) from error
    done, what = 0, f"unpacking {artifact.file}"
    try:
        with (
            packed.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
        ):
            while piece := reader.read(PIECE_BYTES):
                done += len(piece)
                if done > artifact.size:
                    raise Trouble(
                        "damaged_image", f"{packed} holds more than the manifest says of {artifact.file}", remedy=_RENEW
                    )
                yield piece
                progress(what, done, artifact.size)
    except zstandard.ZstdError as error:
        raise Trouble("damaged_image", f"{packed} cannot be unpacked: {error}", remedy=_RENEW) from error
