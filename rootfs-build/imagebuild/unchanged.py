"""Whether an image that is there is the one that would be built: what it was made from is noted beside it.

The note, `.ARCH.made-from` in the output directory, has the hash of the recipe, of the packages, and of every file of the checkout that
decides the image, the builder's own included; and the manifest's hash. An image counts only while each of its files is still what the
manifest says. What is not noted are the versions of mke2fs, mtools and zstd: they may give other bytes for the same content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagebuild.cache import hash_of, hash_of_files
from imagebuild.manifest import describe_file
from imagebuild.python_code import find_code, find_python, python_version
from imagebuild.recipe import Recipe

_PLACES = ("policies", "pyproject.toml", "requirements", "rootfs-build", "systemd")


def image_key(recipe: Recipe, *, packages: Path, presets: bytes, checkout: Path, compress: bool) -> str:
    """The hash of all that decides the image. The cache's entry `packages` is known by its time: whoever refreshes it writes another."""
    files = [*find_code(checkout), *_find_files(checkout)]
    names = [[str(path.relative_to(checkout)), path.stat().st_mode & 0o111] for path in files]
    python = python_version(find_python(recipe.suite.python))
    fetched = packages.stat()
    entry = [packages.name, fetched.st_size, fetched.st_mtime_ns]
    return hash_of([asdict(recipe), entry, presets.decode(), python, compress, names, hash_of_files(files)])


def is_unchanged(image: Path, key: str) -> bool:
    """Is the image of `key` there, whole?"""
    try:
        noted = json.loads(_note_of(image).read_bytes())
        manifest = json.loads((image / "manifest.json").read_bytes())
        if noted != _compose_note(image, key):
            return False
        described = list(_describe(manifest["artifacts"]))
        there = {path.name for path in image.iterdir()}
        named = {"manifest.json", *(one["file"] for one in described)}
        return there == named and all(describe_file(image / one["file"]) == one for one in described)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def note(image: Path, key: str) -> None:
    """The image in the directory `image` is what `key` gives."""
    _note_of(image).write_text(json.dumps(_compose_note(image, key)) + "\n")


def _note_of(image: Path) -> Path:
    return image.with_name(f".{image.name}.made-from")


def _compose_note(image: Path, key: str) -> dict[str, str]:
    return {"key": key, "manifest": describe_file(image / "manifest.json")["sha256"]}


def _describe(artifacts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in artifacts.values():
        yield {name: one[name] for name in ("file", "size", "sha256")}
        if "compressed" in one:
            yield one["compressed"]


def _find_files(checkout: Path) -> list[Path]:
    tops = [checkout / name for name in _PLACES]
    found = [path for top in tops for path in ([top] if top.is_file() else sorted(top.rglob("*"))) if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]
