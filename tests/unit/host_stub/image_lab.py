"""A tiny image in a directory, whole and right, for whoever wants to make a bundle of it or spoil it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import zstandard

from host_stub.bundle import Bundle, create_bundle
from host_stub.bundle_files import no_progress
from host_stub.bundle_settings import Settings

PARTS = {
    "kernel": ("vmlinuz", b"kernel" * 999),
    "initrd": ("initrd.img", b"initrd" * 777),
    "rootfs": ("rootfs.img", b"root" * 50_000 + bytes(3 << 20) + b"end"),
    "disk": ("disk.img", b"disk" * 1000),
}


def stored(name: str, data: bytes) -> dict[str, Any]:
    return {"file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def make_image(directory: Path, *, architecture: str = "x86_64", salt: bytes = b"", **fields: Any) -> dict[str, Any]:
    """Write an image and return its manifest as it was written."""
    directory.mkdir(parents=True, exist_ok=True)
    artifacts: dict[str, Any] = {}
    for part, (name, data) in PARTS.items():
        artifacts[part] = stored(name, salt + data)
        (directory / name).write_bytes(salt + data)
        if part in ("rootfs", "disk"):
            packed = zstandard.compress(salt + data)
            artifacts[part]["compressed"] = stored(f"{name}.zst", packed)
            (directory / f"{name}.zst").write_bytes(packed)
    manifest = {
        "format": 1,
        "name": "cowork",
        "version": "1",
        "architecture": architecture,
        "suite": "any",
        "source_date_epoch": 1,
        "command_line": "console=ttyS0 root=LABEL=cowork-root",
        "update_key": "",
        "artifacts": artifacts,
        "packages": [{"name": "bash", "version": "5"}],
        **fields,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def make_bundle(directory: Path, **settings: Any) -> Bundle:
    """A bundle below `directory` of a tiny image beside it."""
    make_image(directory / "image")
    chosen = Settings(**{"architecture": "x86_64", **settings})
    return create_bundle(
        directory / "vm", directory / "image", chosen, session_disk_bytes=64 << 20, progress=no_progress
    )
