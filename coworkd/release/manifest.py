"""The manifest of a release: `manifest.json`, signed as it stands, which names every file there may be.

    {"format": 1, "name": "coworkd", "version": "1.4.2", "architecture": "any", "minimum_version": "1.0", "python": ["3.11"],
     "words": 1, "contents": ["code", "policies"],
     "files": [{"path": "code/coworkd/__init__.py", "size": 120, "sha256": "…", "mode": 420}, …]}

Rules
- Every file is below `code/` or `policies/`, and each of the two only where `contents` says so: nobody gets policies from a release
  that was signed for code alone.
- `minimum_version` is the oldest image (slot `0`) it runs on; `python` the versions it was made for, none for any; `words` the
  version of the words it speaks with the launcher and coworkd-egress (`model.update.WORDS`).
- A path has only plain parts (no `.`, no `..`, no sign beside `A-Za-z0-9._+@-`), and is there once, however it is spelt in capitals:
  exFAT does not tell them apart. A file is the parent of none.
- Unknown keys, keys that are there twice, and all that is past a limit refuse the whole manifest.

Signature first, then this: nothing here is asked to read what nobody has signed.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from coworkd.model.update import Content as Content
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.versions import Version, parse_version

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.minisig"
MANIFEST_LIMIT_BYTES = 2 * 1024 * 1024
FILE_LIMIT = 8192
FILE_LIMIT_BYTES = 64 * 1024 * 1024
TOTAL_LIMIT_BYTES = 256 * 1024 * 1024
PATH_LIMIT_BYTES = 255
DEPTH_LIMIT = 12
NAME = "coworkd"
CODE_ENTRY = "code/coworkd/__init__.py"
_PART = re.compile(r"[A-Za-z0-9._+@-]+\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_PYTHON = re.compile(r"3\.[0-9]{1,2}\Z", re.ASCII)

Architecture = Literal["any", "aarch64", "x86_64"]


class ReleaseFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`mode` is 0o644 or 0o755."""

    path: str
    size: int
    sha256: str
    mode: int = 0o644


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Checked: made by `parse_manifest` alone, or checked by `check_manifest`."""

    format: Literal[1]
    name: str
    version: str
    architecture: Architecture
    minimum_version: str
    python: tuple[str, ...] = ()
    words: int = 0
    contents: tuple[Content, ...]
    files: tuple[ReleaseFile, ...]

    @property
    def order(self) -> Version:
        return parse_version(self.version)

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


class Here(Struct, frozen=True, kw_only=True):
    """What a release is held against: the image, and the machine."""

    architecture: str
    python: str
    image_version: str
    words: int


def parse_manifest(data: bytes) -> Manifest:
    """Raises `ReleaseRefused`."""
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise ReleaseRefused("too_big", f"the manifest has more than {MANIFEST_LIMIT_BYTES} bytes")
    try:
        manifest = msgspec.convert(json.loads(data, object_pairs_hook=_once), Manifest)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ReleaseRefused("malformed", f"the manifest cannot be read: {str(error)[:200]}") from error
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Raises `ReleaseRefused` for what breaks a rule above."""
    if manifest.name != NAME:
        raise ReleaseRefused("malformed", f"it is a release of {manifest.name[:40]!r}, not of {NAME}")
    parse_version(manifest.version)
    parse_version(manifest.minimum_version)
    if len(manifest.python) > 16 or not all(_PYTHON.match(version) for version in manifest.python):
        raise ReleaseRefused("malformed", f"{manifest.python[:4]} are no versions of Python, such as 3.11")
    contents = manifest.contents
    if not contents or len(set(contents)) != len(contents):
        raise ReleaseRefused("malformed", "`contents` names code, policies, or both, once")
    if not 0 < len(manifest.files) <= FILE_LIMIT:
        raise ReleaseRefused("too_big", f"it has {len(manifest.files)} files; 1 to {FILE_LIMIT} are taken")
    for file in manifest.files:
        _check_file(file, contents)
    _check_names(manifest)
    if manifest.total_bytes > TOTAL_LIMIT_BYTES:
        raise ReleaseRefused("too_big", f"it has {manifest.total_bytes} bytes; {TOTAL_LIMIT_BYTES} are taken")


def check_fits(manifest: Manifest, here: Here) -> None:
    """Whether it can run on this image. Raises `ReleaseRefused`."""
    if manifest.architecture not in ("any", here.architecture):
        raise ReleaseRefused(
            "wrong_architecture", f"it is for {manifest.architecture}, this guest is {here.architecture}"
        )
    if manifest.python and here.python not in manifest.python:
        raise ReleaseRefused(
            "wrong_python", f"it is for Python {', '.join(manifest.python)}, this guest has {here.python}"
        )
    image = parse_version(here.image_version)
    if image < parse_version(manifest.minimum_version):
        raise ReleaseRefused(
            "image_too_old",
            f"it needs an image of {manifest.minimum_version} or newer, this one is {here.image_version}",
        )
    if manifest.order <= image:
        raise ReleaseRefused("not_newer", f"it is {manifest.version}, and the image itself has {here.image_version}")
    if "code" in manifest.contents and manifest.words != here.words:
        said = f"it speaks version {manifest.words} of the words between the programs, the image {here.words}"
        raise ReleaseRefused("wrong_words", f"{said}: it needs a new image")


def directories(manifest: Manifest) -> tuple[str, ...]:
    """Every directory its files are in, parents first."""
    found: dict[str, None] = {}
    for file in manifest.files:
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            found["/".join(parts[:depth])] = None
    return tuple(sorted(found))


def _check_file(file: ReleaseFile, contents: tuple[Content, ...]) -> None:
    parts = file.path.split("/")
    if len(file.path) > PATH_LIMIT_BYTES or len(parts) > DEPTH_LIMIT:
        raise ReleaseRefused("unsafe_path", f"the path {file.path[:60]!r} is too long or too deep")
    if not all(_PART.match(part) and part.strip(".") for part in parts) or file.path != file.path.strip():
        raise ReleaseRefused("unsafe_path", f"the path {file.path[:60]!r} does not lead straight to a file below")
    if len(parts) < 2 or parts[0] not in contents:
        raise ReleaseRefused("unsafe_path", f"the path {file.path[:60]!r} is not below {' or '.join(contents)}/")
    if not 0 <= file.size <= FILE_LIMIT_BYTES:
        raise ReleaseRefused("too_big", f"{file.path} has {file.size} bytes; {FILE_LIMIT_BYTES} are taken")
    if not _SHA256.match(file.sha256):
        raise ReleaseRefused("malformed", f"{file.path} has no SHA-256 in 64 small hex digits")
    if file.mode not in (0o644, 0o755):
        raise ReleaseRefused("malformed", f"{file.path} has mode {file.mode:o}; 644 and 755 are taken")


def _check_names(manifest: Manifest) -> None:
    names = [file.path.lower() for file in manifest.files]
    known = set(names)
    if len(known) != len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ReleaseRefused("malformed", f"{twice} is there twice")
    spelt: dict[str, str] = {}
    for directory in directories(manifest):
        lower = directory.lower()
        if lower in known or spelt.setdefault(lower, directory) != directory:
            raise ReleaseRefused("malformed", f"{directory} is a directory and something else as well")
    if "code" in manifest.contents and CODE_ENTRY not in {file.path for file in manifest.files}:
        raise ReleaseRefused("missing_file", f"it is signed for code and has no {CODE_ENTRY}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is there twice")
    return made
