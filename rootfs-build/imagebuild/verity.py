"""dm-verity: the hashes of every block of the root, and the one hash above them all.

The kernel's command line carries the root hash, so a host that boots this kernel with this command line gets this root, or errors where
it was changed. The salt is fixed: the same root has the same hashes.

Layout: no superblock; levels of 4096-byte blocks of SHA-256 digests, the topmost (one block) first, the level above the data last. A
digest is of the salt and the block. The initrd makes the kernel's table itself (`rootfs-build/init`) and has the same salt.

Source: the kernel's Documentation/admin-guide/device-mapper/verity.rst.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagebuild.trouble import Trouble

BLOCK = 4096
SALT = "c0c0a4d0" * 8
_DIGESTS_A_BLOCK = BLOCK // 32


@dataclass(frozen=True, kw_only=True)
class Verity:
    """What must be known to check a root: nothing else is trusted."""

    root_hash: str
    blocks: int
    """Of the root, each of 4096 bytes."""


def write_verity(root: Path, hashes: Path) -> Verity:
    """Write the file `hashes` for the image `root`. Raises `Trouble` where that is not whole blocks."""
    size = root.stat().st_size
    if not size or size % BLOCK:
        raise Trouble(f"{root} is {size} bytes, which is not whole blocks of {BLOCK}")
    salt = bytes.fromhex(SALT)
    level = _hash_blocks(_read_blocks(root), salt)
    levels = []
    while True:
        packed = level + bytes(-len(level) % BLOCK)
        levels.append(packed)
        if len(packed) == BLOCK:
            break
        level = _hash_blocks((packed[place : place + BLOCK] for place in range(0, len(packed), BLOCK)), salt)
    hashes.write_bytes(b"".join(reversed(levels)))
    return Verity(root_hash=hashlib.sha256(salt + levels[-1]).hexdigest(), blocks=size // BLOCK)


def _hash_blocks(blocks: Iterable[bytes], salt: bytes) -> bytes:
    return b"".join(hashlib.sha256(salt + block).digest() for block in blocks)


def _read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
