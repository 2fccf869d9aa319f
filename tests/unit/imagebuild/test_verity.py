from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from imagebuild.trouble import Trouble
from imagebuild.verity import SALT, write_verity

INIT = Path(__file__).resolve().parents[3] / "rootfs-build" / "init"


def digest(block: bytes) -> bytes:
    return hashlib.sha256(bytes.fromhex(SALT) + block).digest()


def test_a_small_root_has_one_level(tmp_path: Path) -> None:
    root, hashes = tmp_path / "root", tmp_path / "hashes"
    root.write_bytes(b"a" * 4096 + b"b" * 4096)
    made = write_verity(root, hashes)
    level = (digest(b"a" * 4096) + digest(b"b" * 4096)).ljust(4096, b"\0")
    assert hashes.read_bytes() == level
    assert (made.root_hash, made.blocks) == (digest(level).hex(), 2)


def test_the_topmost_level_comes_first(tmp_path: Path) -> None:
    root, hashes = tmp_path / "root", tmp_path / "hashes"
    root.write_bytes(bytes(4096 * 129))
    made = write_verity(root, hashes)
    content = hashes.read_bytes()
    assert len(content) == 3 * 4096
    top, lower = content[:4096], content[4096:]
    assert top == (digest(lower[:4096]) + digest(lower[4096:])).ljust(4096, b"\0")
    assert made.root_hash == digest(top).hex()


def test_every_bit_counts(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.write_bytes(bytes(8192))
    before = write_verity(root, tmp_path / "hashes").root_hash
    root.write_bytes(bytes(8191) + b"\1")
    assert write_verity(root, tmp_path / "hashes").root_hash != before


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_half_blocks_are_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "root").write_bytes(bytes(size))
    with pytest.raises(Trouble, match="not whole blocks"):
        write_verity(tmp_path / "root", tmp_path / "hashes")


def test_the_initrd_has_the_same_salt() -> None:
    assert f"salt={SALT}\n" in INIT.read_text()
