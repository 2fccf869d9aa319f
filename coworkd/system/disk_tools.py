"""The programs that see to an ext4 file system, run at one place: each with its whole command line, a deadline, and its words kept.

They run with nothing of our environment, at fixed places, and die with us (setpriv(1), PR_SET_PDEATHSIG): a mkfs that went on alone would
write to a disk that somebody else is looking at. A program that is missing is `OSError` ENOENT with its name.

Sources: mke2fs(8), e2fsck(8), tune2fs(8), resize2fs(8), blkid(8), setpriv(1).
"""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from collections.abc import Sequence

from msgspec import Struct

BLOCK_BYTES = 4096
PATH = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
OUTPUT_LIMIT_BYTES = 1024 * 1024
QUICK_S, LONG_S = 120.0, 4 * 3600.0
"""A check of a big disk takes its time; nothing else does."""
FEATURES = (
    *("none", "has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "extent", "64bit", "flex_bg"),
    *("sparse_super", "large_file", "huge_file", "dir_nlink", "extra_isize", "metadata_csum"),
)
"""Named one by one, so that the same disk comes out whichever e2fsprogs makes it: what 1.47 adds by itself, 1.46 cannot check."""
QUOTA_FEATURES = ("quota", "project")
NOT_FOUND = 2
"""What blkid ends with where it has found nothing."""
AMBIVALENT = 8


class ToolResult(Struct, frozen=True, kw_only=True):
    """How a program ended, and what it said on both streams together."""

    argv: tuple[str, ...]
    code: int
    output: str

    def failure(self) -> OSError:
        """The sentence for a person: the replayable command line and its last words."""
        words = "; ".join(line.strip() for line in self.output.splitlines() if line.strip()) or "it said nothing"
        return OSError(errno.EIO, f"`{shlex.join(self.argv)}` ended with {self.code}: {words[-300:]}")


def run(name: str, arguments: Sequence[str], *, deadline_s: float = QUICK_S) -> ToolResult:
    """Run to its end. Raises `OSError`: ENOENT for a program that is missing, ETIMEDOUT past the deadline."""
    argv = (_find(name), *arguments)
    try:
        done = subprocess.run(
            (_find("setpriv"), "--pdeathsig", "KILL", "--", *argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"LC_ALL": "C", "PATH": ":".join(PATH)},
            cwd="/",
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"`{shlex.join(argv)}` did not end within {deadline_s:g} s") from error
    text = done.stdout[:OUTPUT_LIMIT_BYTES].decode("utf-8", "replace")
    return ToolResult(argv=argv, code=done.returncode, output=text)


def mkfs_ext4(device: str, *, blocks: int, label: str, reserve_percent: float, quota: bool) -> ToolResult:
    """Make an ext4 of `blocks` blocks. What was there is not asked about: that is the caller's to have done."""
    features = FEATURES + (QUOTA_FEATURES if quota else ())
    return run(
        "mke2fs",
        (
            *("-q", "-F", "-t", "ext4", "-b", str(BLOCK_BYTES), "-I", "256", "-i", "8192", "-e", "remount-ro"),
            *("-m", f"{reserve_percent:g}", "-L", label, "-O", ",".join(features)),
            *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", device, str(blocks)),
        ),
    )


def e2fsck(device: str, *options: str) -> ToolResult:
    """Check; the exit code is a sum of 1 (mended), 4 (not mended), 8 (could not), and more."""
    return run("e2fsck", (*options, device), deadline_s=LONG_S)


def tune2fs(device: str, *options: str) -> ToolResult:
    return run("tune2fs", (*options, device))


def resize2fs(device: str, blocks: int) -> ToolResult:
    """Make the file system that large; on line where it is mounted."""
    return run("resize2fs", (device, str(blocks)), deadline_s=LONG_S)


def blkid(device: str) -> dict[str, str]:
    """What signature the device has, by blkid's own names (TYPE, LABEL, PTTYPE); `AMBIVALENT` where it has several. Raises `OSError`."""
    done = run("blkid", ("-p", "-o", "export", device))
    if done.code == NOT_FOUND:
        return {}
    if done.code == AMBIVALENT:
        return {"AMBIVALENT": "several signatures"}
    if done.code:
        raise done.failure()
    pairs = (line.partition("=") for line in done.output.splitlines())
    return {key: value for key, _, value in pairs if key and key != "DEVNAME"}


def _find(name: str) -> str:
    for directory in PATH:
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    raise OSError(errno.ENOENT, f"the program {name} is missing; install e2fsprogs and util-linux", name)
