"""The root as an ext4 image: made by mke2fs from a directory, no loop device, no mount.

The same tree gives the same bytes: fixed UUID, hash seed and time; no journal (nobody writes to it, a clean one would be dead weight);
owners and the change time of every inode, which mke2fs copies from this machine's own, set by debugfs afterwards.

Source: mke2fs(8), debugfs(8) (`set_inode_field`).
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
from pathlib import Path

from imagebuild.recipe import HASH_SEED, ROOT_LABEL, ROOT_UUID
from imagebuild.run import run
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble

_BLOCK = 4096
_INODE = 256
_GROUP_BLOCKS = 32768
_FEATURES = "^has_journal,^resize_inode,^huge_file,extent,dir_index,filetype,flex_bg,sparse_super2,metadata_csum,64bit"


def compose_mke2fs(tree: Path, image: Path, *, blocks: int, inodes: int) -> list[str]:
    """The argv that makes `image`, a file, of the directory `tree`."""
    extended = f"hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=0,nodiscard,num_backup_sb=0"
    options = [
        "-t",
        "ext4",
        "-b",
        str(_BLOCK),
        "-I",
        str(_INODE),
        "-N",
        str(inodes),
        "-m",
        "0",
        "-O",
        _FEATURES,
        "-E",
        extended,
    ]
    return ["mke2fs", "-q", "-F", *options, "-U", ROOT_UUID, "-L", ROOT_LABEL, "-d", str(tree), str(image), str(blocks)]


def measure(tree: Tree) -> tuple[int, int]:
    """Blocks and inodes that the tree needs, with a little to spare."""
    blocks, inodes, seen = 0, 16, set()
    for name in tree.names():
        status = (tree.root / name).lstat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        inodes += 1
        if stat.S_ISREG(status.st_mode):
            blocks += math.ceil(status.st_size / _BLOCK)
        elif stat.S_ISDIR(status.st_mode):
            blocks += max(
                1, math.ceil(sum(len(os.fsencode(entry)) + 12 for entry in os.listdir(tree.root / name)) * 1.4 / _BLOCK)
            )
        elif status.st_size >= 60:
            blocks += 1
    blocks += math.ceil(inodes * _INODE / _BLOCK)
    blocks += 64 + 4 * math.ceil(blocks / _GROUP_BLOCKS) + blocks // 100
    return blocks, inodes + 16


def compose_debugfs(tree: Tree, epoch: int) -> str:
    """The commands that give every inode its owner and its times. Raises `Trouble` for a name debugfs cannot be told."""
    lines = []
    for name in ("", *tree.names()):
        if '"' in name or "\n" in name:
            raise Trouble(f"{name!r} is a name that debugfs cannot be told")
        status = (tree.root / name).lstat()
        uid, gid = tree.owners.get(name, (0, 0))
        fields = [("ctime", f"@{epoch}"), ("atime", f"@{epoch}"), ("mtime", f"@{epoch}"), ("crtime", f"@{epoch}")]
        fields += [(f"{field}_extra", "0") for field in ("ctime", "atime", "mtime", "crtime")]
        fields += [("uid", str(uid))] if uid != status.st_uid else []
        fields += [("gid", str(gid))] if gid != status.st_gid else []
        lines += [f'set_inode_field "/{name}" {field} {value}' for field, value in fields]
    return "\n".join(lines) + "\n"


def write_ext4(tree: Tree, image: Path, *, epoch: int) -> None:
    """Make the file `image`, as small as the tree lets it be. Raises `Trouble`."""
    blocks, inodes = measure(tree)
    env = {"E2FSPROGS_FAKE_TIME": str(epoch), "SOURCE_DATE_EPOCH": str(epoch), "MKE2FS_CONFIG": os.devnull}
    for _attempt in range(8):
        image.unlink(missing_ok=True)
        try:
            run(compose_mke2fs(tree.root, image, blocks=blocks, inodes=inodes), env=env)
            break
        except Trouble as error:
            if "No space left" not in str(error) and "could not allocate" not in str(error).lower():
                raise
            blocks += blocks // 50 + 256
    else:
        raise Trouble(f"mke2fs finds no room for the tree in {blocks} blocks")
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as commands:
        commands.write(compose_debugfs(tree, epoch))
        commands.flush()
        said = run(["debugfs", "-w", "-f", commands.name, str(image)], env=env)
    wrong = [line for line in said.splitlines() if line.strip() and not line.startswith("debugfs:")]
    if wrong:
        raise Trouble(f"debugfs did not do all it was told: {wrong[0]}")
