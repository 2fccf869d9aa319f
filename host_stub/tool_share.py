"""`cowork-vm tool install`: a file or directory of this host, put into the machine's share for as long as the guest takes it.

Rules
- What lies below the share already is named as it is. Anything else is copied to `SHARE/shared/.cowork-tools/`, and removed afterwards.
- Without `--sha256` the digest is that of the copy, made while it is copied; with it, the guest refuses what has another.
- A directory becomes a tar of it, sorted, without owners and times: the same directory has the same digest on every host.

- The guest can write in the share, and may have put a link in the place of any name: each directory is opened as itself, through no
  link, and the copy is made, named and removed in that very directory.

Sessions see `.cowork-tools` only where the whole share was granted to them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from host_stub.words import Trouble

DIRECTORY = ".cowork-tools"
_PIECE_BYTES = 1 << 20


@contextlib.contextmanager
def shared_tool(words: Sequence[str], share: Path) -> Iterator[list[str]]:
    """The words of `tool` as coworkctl takes them, with the source where the guest finds it. Raises `Trouble`."""
    source = None if words[:1] != ["install"] else _parse(words[1:])
    if source is None or _is_shared(source.path, share) or not Path(source.path).exists():
        yield list(words)
        return
    with _opened(share / "shared", source.path) as directory:
        name = secrets.token_hex(8)
        digest = _stage(Path(source.path), directory, name, share / "shared")
        try:
            given = list(words)
            given[given.index(source.path, 3)] = f"{DIRECTORY}/{name}"
            yield given if source.has_digest else [*given, "--sha256", digest]
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)


class _Source:
    def __init__(self, path: str, *, has_digest: bool) -> None:
        self.path, self.has_digest = path, has_digest


def _parse(words: Sequence[str]) -> _Source | None:
    """Where the source stands in the words of `tool install`; None where there is none, or coworkctl will not take the words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--sha256", "--command", "--timeout"):
        parser.add_argument(name, action="append")
    parser.add_argument("words", nargs="*")
    try:
        parsed, _ = parser.parse_known_intermixed_args(list(words))
    except (argparse.ArgumentError, SystemExit):
        return None
    if len(parsed.words) != 3:
        return None
    return _Source(parsed.words[2], has_digest=parsed.sha256 is not None)


def _is_shared(path: str, share: Path) -> bool:
    return not path.startswith("/") and (share / "shared" / path).exists()


@contextlib.contextmanager
def _opened(shared: Path, source: str) -> Iterator[int]:
    """The directory for tools in the share, made where it is not there, and removed afterwards."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        try:
            above = os.open(shared, flags)
            stack.callback(os.close, above)
            with contextlib.suppress(FileExistsError):
                os.mkdir(DIRECTORY, 0o755, dir_fd=above)
            directory = os.open(DIRECTORY, flags, dir_fd=above)
            stack.callback(os.close, directory)
        except OSError as error:
            raise _cannot_share(source, shared, error) from error
        try:
            yield directory
        finally:
            with contextlib.suppress(OSError):  # another install has something in it
                os.rmdir(DIRECTORY, dir_fd=above)


def _stage(source: Path, directory: int, name: str, shared: Path) -> str:
    """Copy `source` to `name` in `directory`; the SHA-256 of the copy."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(name, flags, 0o644, dir_fd=directory), "wb") as copy:
            hashing = _Hashing(copy)
            if source.is_dir():
                _pack(source, hashing)
            else:
                with source.open("rb") as file:
                    while piece := file.read(_PIECE_BYTES):
                        hashing.write(piece)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise _cannot_share(str(source), shared, error) from error
    return hashing.digest.hexdigest()


def _cannot_share(source: str, shared: Path, error: OSError) -> Trouble:
    return Trouble(
        "cannot_share",
        f"{source} cannot be copied into the share: {error.strerror or error}",
        remedy=f"see that {shared} is writable and has room, and that {DIRECTORY} in it is no link; "
        "or put the file there and name it below the share",
    )


class _Hashing:
    """A file to write to whose digest is taken meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _pack(source: Path, target: _Hashing) -> None:
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for directory, names, files in os.walk(source):
            names.sort()
            for name in sorted([*files, *names]):
                path = Path(directory, name)
                tar.add(path, str(path.relative_to(source)), recursive=False, filter=_plain)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o111 else 0o644
    return entry
