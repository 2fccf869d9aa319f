"""manifest.json: what an image consists of, with the SHA-256 of each part. The host's reader is `host_stub.manifest`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagebuild.recipe import Recipe

FORMAT = 1


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return {"file": path.name, "size": path.stat().st_size, "sha256": digest.hexdigest()}


def compose_manifest(
    recipe: Recipe,
    *,
    version: str,
    artifacts: Mapping[str, Any],
    packages: Sequence[tuple[str, str]],
    root_hash: str = "",
) -> str:
    """The file's text. `artifacts` is by role, each as `describe_file` says, with `compressed` where there is one."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": "cowork-guest",
        "version": version,
        "architecture": recipe.architecture.name,
        "suite": recipe.suite.name,
        "source_date_epoch": recipe.source_date_epoch,
        "command_line": compose_command_line(recipe, root_hash),
        "update_key": recipe.update_key,
        "artifacts": artifacts,
        "packages": [{"name": name, "version": package_version} for name, package_version in packages],
    }
    if root_hash:
        manifest["verity"] = {"root_hash": root_hash}
    return json.dumps(manifest, indent=2) + "\n"


def compose_command_line(recipe: Recipe, root_hash: str = "") -> str:
    """The kernel's command line, with the root hash where the root is checked."""
    return f"{recipe.command_line} cowork.verity={root_hash}" if root_hash else recipe.command_line
