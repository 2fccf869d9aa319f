"""manifest.json: what an image consists of, with the SHA-256 of each part. The host's reader is `host_stub.manifest`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagebuild.recipe import Recipe
from imagebuild.verity import Verity

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
    verity: Verity | None = None,
) -> str:
    """The file's text. `artifacts` is by role, each as `describe_file` says, with `compressed` where there is one."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": "cowork-guest",
        "version": version,
        "architecture": recipe.architecture.name,
        "suite": recipe.suite.name,
        "source_date_epoch": recipe.source_date_epoch,
        "command_line": compose_command_line(recipe, verity),
        "update_key": recipe.update_key,
        "artifacts": artifacts,
        "packages": [{"name": name, "version": package_version} for name, package_version in packages],
    }
    if verity is not None:
        manifest["verity"] = {"root_hash": verity.root_hash}
    return json.dumps(manifest, indent=2) + "\n"


def compose_command_line(recipe: Recipe, verity: Verity | None = None) -> str:
    """The kernel's command line, with the root hash where the root is checked."""
    if verity is None:
        return recipe.command_line
    return f"{recipe.command_line} cowork.verity={verity.root_hash} cowork.verity_blocks={verity.blocks}"
