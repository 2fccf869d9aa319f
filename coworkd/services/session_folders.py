"""Which folders a session may have: judged before anything is made. The look at the disk is blocking.

Rules: a mode the profile allows and this build can mount (`ro`, `rwd`); an absolute real path; never `/`, a kernel file system, or
anything that holds or lies in coworkd's own directories; no listening socket below it, which a command could talk to from inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from coworkd.model.errors import InvalidParams, PolicyDenied, Unimplemented
from coworkd.model.names import parse_folder_name
from coworkd.model.policy import Profile
from coworkd.model.session import FolderGrant

MOUNTABLE = ("ro", "rwd")
FOLDER_LIMIT = 64
_KERNEL = ("/proc", "/sys", "/dev", "/run")
_PATH_MAX_BYTES = 4095
_LISTENING = 0x10000
"""SO_ACCEPTCON in the flags column of /proc/net/unix."""


def judge_folders(folders: Sequence[FolderGrant], profile: Profile, own_directories: Iterable[str]) -> None:
    """Raise `InvalidParams`, `PolicyDenied` or `Unimplemented` for the first folder that cannot be; no I/O."""
    if len(folders) > FOLDER_LIMIT:
        raise InvalidParams(f"a session has at most {FOLDER_LIMIT} folders, not {len(folders)}", key="folders")
    names = [parse_folder_name(folder.name) for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise InvalidParams(f"folder {name!r} is given twice", key="folders")
    own = [*own_directories, *_KERNEL]
    for folder in folders:
        _judge_mode(folder, profile)
        _judge_source(folder, own)


def _judge_mode(folder: FolderGrant, profile: Profile) -> None:
    if folder.mode not in profile.folders.modes:
        allowed = ", ".join(profile.folders.modes)
        raise PolicyDenied(
            f"folder {folder.name!r}: mode {folder.mode} is not allowed by profile {profile.name} (it allows {allowed})",
            key="folders.mode",
        )
    if folder.mode not in MOUNTABLE:
        raise Unimplemented(f"folder {folder.name!r}: mode {folder.mode} cannot be mounted yet; use ro or rwd")


def _judge_source(folder: FolderGrant, own: Iterable[str]) -> None:
    source = folder.source
    if len(source.encode()) > _PATH_MAX_BYTES:
        raise InvalidParams(f"folder {folder.name!r}: a path has at most {_PATH_MAX_BYTES} bytes", key="folders.source")
    if "\0" in source or not source.startswith("/") or os.path.normpath(source) != source or source.startswith("//"):
        raise InvalidParams(
            f"folder {folder.name!r}: source {source!r} is not an absolute, normal path", key="folders.source"
        )
    if source == "/":
        raise PolicyDenied(f"folder {folder.name!r}: the whole root file system is not shared", key="folders.source")
    for directory in own:
        if contains(directory, source) or contains(source, directory):
            raise PolicyDenied(
                f"folder {folder.name!r}: {source} and {directory} lie in each other; that is never shared",
                key="folders.source",
            )


def contains(outer: str, inner: str) -> bool:
    """Whether the path `inner` is `outer` or below it."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def refuse_sockets(folders: Sequence[FolderGrant], profile: Profile) -> None:
    """Raise `PolicyDenied` where a process listens on a socket below a folder, unless the profile allows sockets."""
    if profile.folders.allow_sockets or not folders:
        return
    with open("/proc/net/unix", errors="surrogateescape") as file:  # a path is whatever bytes its maker chose
        listening = parse_listening(file.read())
    for folder in folders:
        for path in listening:
            if contains(folder.source, path):
                raise PolicyDenied(
                    f"folder {folder.name!r}: something listens on {path}, and a command could talk to it; move it, or"
                    " set folders.allow_sockets in the profile",
                    key="folders.source",
                )


def parse_listening(text: str) -> list[str]:
    """The paths of listening sockets in the text of /proc/net/unix (proc(5))."""
    paths = []
    for line in text.splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/") and _flags(fields[3]) & _LISTENING:
            paths.append(fields[7])
    return paths


def _flags(field: str) -> int:
    """0 for what is no number: a line that a path with a line end in it has made."""
    try:
        return int(field, 16)
    except ValueError:
        return 0
