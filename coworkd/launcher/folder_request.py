"""Whether a folder can be asked for in these words: names and paths alone, before anything is looked at.

The supervisor has judged all of it; it is judged again, for what follows runs as root.
"""

from __future__ import annotations

from coworkd.model.errors import InvalidParams
from coworkd.model.launch import MountFolder
from coworkd.model.names import parse_folder_name

_DEADLINES_S = (0.05, 60.0)
"""The least and the most that a supervisor may ask for."""


def find_problem(request: MountFolder) -> str | None:
    """Why it cannot be asked for, or None."""
    problem = find_name_problem(request.name)
    if problem is not None:
        return problem
    if not _is_absolute(request.root):
        return "the root of folders is an absolute path"
    if request.source != b"." and not _is_relative(request.source):
        return "a source is relative to the root, without empty or dotted parts"
    if request.mode == "staged" and not _is_absolute(request.stage):
        return "a staged folder has the absolute path of its stage"
    if request.journal and not _is_absolute(request.journal):
        return "a journal has an absolute path"
    if not all(map(_is_absolute, request.apart_from)):
        return "directories of coworkd's own have absolute paths"
    if not _DEADLINES_S[0] <= request.deadline_s <= _DEADLINES_S[1]:
        return f"a deadline is {_DEADLINES_S[0]} to {_DEADLINES_S[1]} s"
    return None


def find_name_problem(name: str) -> str | None:
    try:
        parse_folder_name(name)
    except InvalidParams as error:
        return error.message
    return None


def _is_absolute(path: bytes) -> bool:
    return path == b"/" or (path.startswith(b"/") and _is_relative(path[1:]))


def _is_relative(path: bytes) -> bool:
    return b"\0" not in path and all(part not in (b"", b".", b"..") for part in path.split(b"/"))
