"""What was made before, kept by the hash of what it was made from.

An entry is one file, `NAME-HASH.SUFFIX`, that appears whole or not at all (written beside, then renamed). Two builds at once may make the
same entry; the later rename wins and nobody reads half of one. Nothing here decides when an entry is too old: its key has to.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def hash_of(value: Any) -> str:
    """The SHA-256 of a value made of texts, numbers, lists and dicts, cut to 32 digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def hash_of_files(paths: Iterable[Path]) -> str:
    """The SHA-256 of the names and contents of files, in the order given, cut to 32 digits."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


class Cache:
    """A directory of entries."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def entry(self, name: str, key: Any, make: Callable[[Path], None], *, suffix: str, fresh: bool = False) -> Path:
        """The entry of `name` for `key`; where it is not there yet (or must be `fresh`), `make` writes the file whose path it is given."""
        wanted = self.directory / f"{name}-{hash_of(key)}{suffix}"
        if wanted.exists() and not fresh:
            return wanted
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=self.directory) as beside:
            made = Path(beside, f"made{suffix}")
            make(made)
            made.rename(wanted)
        return wanted

    def room(self, name: str) -> Path:
        """A directory of the cache that another program keeps by itself."""
        room = self.directory / name
        room.mkdir(exist_ok=True)
        return room
