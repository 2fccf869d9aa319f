"""What a command line of rm and its like is about to delete in one folder: for the list a person is shown. Pure.

Rules
- Paths are judged as they are written: against the command's directory, without looking at a link. What is deleted in the end is asked
  about one by one, so a path that was judged wrong here is asked about again.
- A command line is what the command says of itself. It can only make the list longer, where a person sees it.
- With `-r` a directory means all below it, and so does one that the folder itself lies in.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import NamedTuple

REMOVERS = (b"rm", b"rmdir", b"unlink")
PATHS = 10_000
_RECURSIVE = (b"--recursive", b"--recursiv", b"--recursi", b"--recurs", b"--recur")


class Deletes(NamedTuple):
    """Relative to the folder; `b""` is the folder itself."""

    paths: tuple[bytes, ...]
    recursive: bool


def parse_deletes(argv: Sequence[bytes], name: bytes, directory: bytes, folder: bytes) -> Deletes | None:
    """None where it is another command. `name` is comm(5), `directory` where it runs, `folder` where the session sees the folder."""
    tool = _tool(argv, name)
    if tool is None:
        return None
    words, options = _split(argv[1:])
    recursive = tool == b"rm" and any(_is_recursive(option) for option in options)
    found: dict[bytes, None] = {}
    for word in words[:PATHS]:
        path = _below(posixpath.normpath(posixpath.join(directory, word)), folder, recursive=recursive)
        if path is not None and word:
            found[path] = None
    return Deletes(tuple(found), recursive)


def _tool(argv: Sequence[bytes], name: bytes) -> bytes | None:
    for word in (posixpath.basename(argv[0]) if argv else b"", name):
        if word in REMOVERS:
            return word
    return None


def _split(words: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Operands and options; GNU's own order, in which options may stand anywhere before `--`."""
    operands: list[bytes] = []
    options: list[bytes] = []
    for place, word in enumerate(words):
        if word == b"--":
            return [*operands, *words[place + 1 :]], options
        (options if word.startswith(b"-") and word != b"-" else operands).append(word)
    return operands, options


def _is_recursive(option: bytes) -> bool:
    if option.startswith(b"--"):
        return option in _RECURSIVE
    return b"r" in option or b"R" in option


def _below(path: bytes, folder: bytes, *, recursive: bool) -> bytes | None:
    # POSIX lets a path begin with two slashes of their own meaning; Linux has none.
    path = b"/" + path.lstrip(b"/")
    if path == folder:
        return b""
    if path.startswith(folder + b"/"):
        return path[len(folder) + 1 :]
    if recursive and folder.startswith(path.rstrip(b"/") + b"/"):
        return b""
    return None
