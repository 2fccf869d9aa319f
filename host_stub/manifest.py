"""manifest.json: what an image is made of, and the SHA-256 of every part. Bytes in, types out; no I/O.

Rules
- The file says `format: 1`. A higher number means that something here is no longer meant as it was, so it is refused; fields that
  are not known are left alone, for they change nothing.
- A key that stands twice in one object is refused: readers differ in which of the two they take.
- A file name is one plain name: it cannot leave the image's directory, hide, or look like an option.
- What an artefact says of its size and digest is what is there *uncompressed*; `compressed` is the original it can be made from.

Written by rootfs-build. Not here: whether the files are what the manifest says (`bundle_image`).
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from host_stub.words import Architecture, Boot, Trouble

FORMAT = 1
FILE_NAME = "manifest.json"
MAX_BYTES = 4 << 20
MAX_ARTIFACT_BYTES = 1 << 44
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMAND_LINE = re.compile(r"[\x20-\x7e]{0,2047}")


class Stored(Struct, frozen=True, kw_only=True):
    """A file as it lies there."""

    file: str
    size: int
    sha256: str


class Artifact(Stored, frozen=True, kw_only=True):
    """A part of the image, and the zstd-compressed original of it where there is one."""

    compressed: Stored | None = None


class Artifacts(Struct, frozen=True, kw_only=True):
    """`kernel` and `initrd` and `rootfs` boot directly, `disk` boots by EFI; `verity` are the root's hashes."""

    kernel: Artifact | None = None
    initrd: Artifact | None = None
    rootfs: Artifact | None = None
    disk: Artifact | None = None
    verity: Artifact | None = None


class Verity(Struct, frozen=True, kw_only=True):
    root_hash: str


class Package(Struct, frozen=True, kw_only=True):
    name: str
    version: str


class Manifest(Struct, frozen=True, kw_only=True):
    """An image. `update_key` is the minisign public key that updates must be signed with, or lines of more; empty: none are taken."""

    format: int
    name: str
    version: str
    architecture: Architecture
    suite: str = ""
    source_date_epoch: int = 0
    command_line: str = ""
    update_key: str = ""
    artifacts: Artifacts
    verity: Verity | None = None
    packages: tuple[Package, ...] = ()

    def needed(self, boot: Boot) -> dict[str, Artifact]:
        """The artefacts that a machine booted that way is made of, by their names. Raises `Trouble` where one is not listed."""
        names = ("kernel", "initrd", "rootfs") if boot == "kernel" else ("disk",)
        found = {name: getattr(self.artifacts, name) for name in names}
        if missing := [name for name, artifact in found.items() if artifact is None]:
            raise Trouble(
                "no_artifact",
                f"the image {self.name} {self.version} has no {' and no '.join(missing)}, which booting by {boot} needs",
                remedy="build the image with it, or choose the other way to boot with --boot",
            )
        return found


class _Twice(ValueError):
    """A key stands twice."""


def parse_manifest(data: bytes, *, source: str) -> Manifest:
    """The manifest in `data`; `source` is what people call the file. Raises `Trouble` (`bad_manifest`, `manifest_format`)."""
    tree = _parse_tree(data, source)
    number = tree.get("format")
    if number != FORMAT or isinstance(number, bool):
        raise Trouble(
            "manifest_format",
            f"{source} has the format {number!r}, and only {FORMAT} is known here",
            remedy="use a cowork-vm as new as the image, or an image as old as this cowork-vm",
        )
    try:
        manifest = msgspec.convert(tree, Manifest)
    except msgspec.ValidationError as error:
        _refuse(source, str(error))
    for where, stored in _all_stored(manifest.artifacts):
        _check_stored(source, where, stored)
    _check_distinct(source, manifest.artifacts)
    if manifest.verity is not None and not _DIGEST.fullmatch(manifest.verity.root_hash):
        _refuse(source, "verity.root_hash is not 64 lower-case hexadecimal digits")
    if not _COMMAND_LINE.fullmatch(manifest.command_line):
        _refuse(source, "command_line is longer than 2047 bytes, or not printable ASCII")
    return manifest


def _parse_tree(data: bytes, source: str) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        _refuse(source, f"it has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        tree = json.loads(data.decode(), object_pairs_hook=_once)
    except _Twice as error:
        _refuse(source, f"the key {str(error)!r} stands twice in one object")
    except (ValueError, RecursionError) as error:
        _refuse(source, f"it is no JSON: {error}")
    if not isinstance(tree, dict):
        _refuse(source, "it is no JSON object")
    return tree


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return made


def _all_stored(artifacts: Artifacts) -> list[tuple[str, Stored]]:
    found: list[tuple[str, Stored]] = []
    for name in Artifacts.__struct_fields__:
        artifact: Artifact | None = getattr(artifacts, name)
        if artifact is not None:
            found.append((f"artifacts.{name}", artifact))
            if artifact.compressed is not None:
                found.append((f"artifacts.{name}.compressed", artifact.compressed))
    return found


def _check_stored(source: str, where: str, stored: Stored) -> None:
    if not _PLAIN_NAME.fullmatch(stored.file):
        _refuse(source, f"{where}.file is {stored.file[:200]!r}, which is no plain file name")
    if not _DIGEST.fullmatch(stored.sha256):
        _refuse(source, f"{where}.sha256 is not 64 lower-case hexadecimal digits")
    if not 0 < stored.size <= MAX_ARTIFACT_BYTES:
        _refuse(source, f"{where}.size is {stored.size}")


def _check_distinct(source: str, artifacts: Artifacts) -> None:
    names = [stored.file for _, stored in _all_stored(artifacts)]
    for name in names:
        if names.count(name) > 1:
            _refuse(source, f"two artefacts are called {name}")
        if name == FILE_NAME:
            _refuse(source, f"an artefact is called {FILE_NAME}")


def _refuse(source: str, what: str) -> NoReturn:
    raise Trouble(
        "bad_manifest",
        f"{source} cannot be used: {what}",
        remedy="build the image again, or copy it again whole; for a machine that has it: cowork-vm renew --image DIR",
    )
