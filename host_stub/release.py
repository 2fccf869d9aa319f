"""Releases, made and signed: a directory with `code/` and `policies/`, a manifest of what is in it, and a signature over that.

    DIRECTORY/manifest.json  manifest.json.minisig  code/coworkd/…  policies/…

`compose_manifest` goes by what is there; what the guest would refuse (`coworkd.release`) is refused here first, by the same code. The
`.pyc` files of code are made with the interpreter that runs this, unchecked by date, so that a guest need not compile and the manifest
names every file there will ever be.
"""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from coworkd.model.update import WORDS
from coworkd.release.manifest import MANIFEST, SIGNATURE, Architecture, Content, Manifest, ReleaseFile, check_manifest
from coworkd.release.refusal import ReleaseRefused
from host_stub.release_key import SecretKey, sign
from host_stub.words import Trouble

_CONTENTS: tuple[Content, ...] = ("code", "policies")
_LEFT_OUT = ("__pycache__", ".git", ".mypy_cache", ".ruff_cache")


def gather(target: Path, *, code: Path | None, policies: Path | None, with_bytecode: bool = True) -> None:
    """Copy a package directory `coworkd` and a directory of policies into `target`, which must not be there. Raises `Trouble`."""
    if target.exists():
        raise Trouble("exists", f"{target} is there already", remedy="choose another directory, or remove it")
    ignore = shutil.ignore_patterns(*_LEFT_OUT)
    try:
        target.mkdir(parents=True)
        if code is not None:
            shutil.copytree(code, target / "code" / "coworkd", ignore=ignore)
            if with_bytecode:
                _compile(target / "code")
        if policies is not None:
            shutil.copytree(policies, target / "policies", ignore=ignore)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise Trouble(
            "not_written", f"the release cannot be gathered: {error}", remedy="look at the paths and the room there is"
        ) from error


def compose_manifest(
    directory: Path,
    *,
    version: str,
    architecture: Architecture = "any",
    minimum_version: str = "0.0",
    python: tuple[str, ...] = (),
) -> Manifest:
    """The manifest of what is in `directory`. Raises `Trouble` for what no guest would take."""
    contents = tuple(name for name in _CONTENTS if (directory / name).is_dir())
    try:
        files = tuple(_described(directory, path) for name in contents for path in _walk(directory / name))
        manifest = Manifest(
            format=1,
            name="coworkd",
            version=version,
            architecture=architecture,
            minimum_version=minimum_version,
            python=python,
            words=WORDS if "code" in contents else 0,
            contents=contents,
            files=files,
        )
        check_manifest(manifest)
    except ReleaseRefused as refused:
        raise Trouble(refused.why, f"no guest would take it: {refused.message}", remedy="mend the release") from refused
    except OSError as error:
        raise Trouble("unreadable", f"{error.filename}: {error.strerror}", remedy="mend the release") from error
    return manifest


def write_signed(directory: Path, manifest: Manifest, key: SecretKey) -> None:
    """Put `manifest.json` and its signature into `directory`, over older ones. Raises `OSError`."""
    data = compose_bytes(manifest)
    comment = f"coworkd {manifest.version} {manifest.architecture} sha256 {hashlib.sha256(data).hexdigest()}"
    (directory / MANIFEST).write_bytes(data)
    (directory / SIGNATURE).write_bytes(sign(data, key, comment=comment))


def compose_bytes(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`: the same for the same release."""
    return json.dumps(msgspec.to_builtins(manifest), indent=1).encode() + b"\n"


def running_python() -> str:
    """Such as `3.11`: what the bytecode of `gather` is for."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _described(directory: Path, path: Path) -> ReleaseFile:
    if path.is_symlink() or not path.is_file():
        raise ReleaseRefused("not_a_file", f"{path} is no plain file")
    data = path.read_bytes()
    mode = 0o755 if os.access(path, os.X_OK) else 0o644
    name = path.relative_to(directory).as_posix()
    return ReleaseFile(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mode=mode)


def _walk(top: Path) -> Iterator[Path]:
    for entry in sorted(top.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)
        else:
            yield entry


def _compile(code: Path) -> None:
    """Next to each module its bytecode, which is taken without a look at dates: exFAT keeps them badly."""
    for path in _walk(code):
        if path.suffix == ".py":
            name = path.relative_to(code).as_posix()
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(path), dfile=name, doraise=True, invalidation_mode=mode)
