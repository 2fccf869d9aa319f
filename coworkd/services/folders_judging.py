"""Which folders a session may have: judged before anything is made, by words alone. No source is looked at here: a share may hang.

Rules
- A mode the profile allows; at most `FOLDER_LIMIT` folders, each name once.
- With a share root, a source is below it: a leading `/` is the share's root, `..` leads nowhere. Without one (embedded) it is an absolute,
  normal path of this machine; never `/`, and never a kernel file system.
- Never anything that holds or lies in coworkd's own directories.
- No listening socket below it, which a command could talk to from inside: as the kernel's own table names them (unix(7), proc(5)).

Whether a source is there, and what it is, the launcher finds out when it mounts it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coworkd.model.errors import InvalidParams, PolicyDenied
from coworkd.model.names import parse_folder_name
from coworkd.model.policy import Profile
from coworkd.model.session import FolderGrant

FOLDER_LIMIT = 64
_KERNEL = ("/proc", "/sys", "/dev", "/run")
_PATH_MAX_BYTES = 4095
_LISTENING = 0x10000
"""SO_ACCEPTCON in the flags column of /proc/net/unix."""


class Place(NamedTuple):
    """Where a source is: `source` is looked up below `root`, as `launch.MountFolder` says."""

    root: bytes
    source: bytes

    @property
    def path(self) -> bytes:
        """As one path of the guest."""
        return os.path.normpath(os.path.join(self.root, self.source))


class FolderRules:
    """The rules of one coworkd. `share_root` is empty where there is no share."""

    def __init__(self, *, share_root: str, own_directories: Iterable[str]) -> None:
        self._share_root = share_root
        self._own = (*own_directories, *(() if share_root else _KERNEL))

    @property
    def own_directories(self) -> tuple[bytes, ...]:
        """What no source lies in or holds, by whatever path."""
        return tuple(os.fsencode(directory) for directory in self._own)

    def judge(self, folders: Sequence[FolderGrant], profile: Profile) -> None:
        """Raise `InvalidParams` or `PolicyDenied` for the first folder that cannot be; no I/O."""
        if len(folders) > FOLDER_LIMIT:
            raise InvalidParams(f"a session has at most {FOLDER_LIMIT} folders, not {len(folders)}", key="folders")
        names = [parse_folder_name(folder.name) for folder in folders]
        for name in names:
            if names.count(name) > 1:
                raise InvalidParams(f"folder {name!r} is given twice", key="folders")
        for folder in folders:
            self.judge_one(folder, profile)

    def judge_one(self, folder: FolderGrant, profile: Profile) -> None:
        """The same for a folder by itself: one of a record, of other policies and another configuration than these."""
        judge_mode(folder, profile)
        self._judge_place(folder)

    def place(self, folder: FolderGrant) -> Place:
        """Where its source is. Raises `InvalidParams` for one that cannot be meant."""
        source = folder.source
        if len(source.encode()) > _PATH_MAX_BYTES:
            raise _refused(folder, f"a path has at most {_PATH_MAX_BYTES} bytes")
        if "\0" in source:
            raise _refused(folder, f"source {source!r} has a NUL in it")
        if self._share_root:
            parts = [part for part in source.split("/") if part not in ("", ".")]
            if not source or ".." in parts:
                raise _refused(folder, f"source {source!r} is not a path below the share; it has no .. in it")
            return Place(self._share_root.encode(), "/".join(parts).encode() or b".")
        if not source.startswith("/") or os.path.normpath(source) != source or source.startswith("//"):
            raise _refused(folder, f"source {source!r} is not an absolute, normal path")
        return Place(b"/", source[1:].encode() or b".")

    def path(self, folder: FolderGrant) -> str:
        """The source as one path of the guest."""
        return self.place(folder).path.decode()

    def _judge_place(self, folder: FolderGrant) -> None:
        path = self.path(folder)
        if path == "/":
            raise PolicyDenied(
                f"folder {folder.name!r}: the whole root file system is not shared", key="folders.source"
            )  # fmt: skip
        for directory in self._own:
            if contains(directory, path) or contains(path, directory):
                raise PolicyDenied(
                    f"folder {folder.name!r}: {path} and {directory} lie in each other; that is never shared",
                    key="folders.source",
                )

    def refuse_sockets(self, folders: Sequence[FolderGrant], profile: Profile) -> None:
        """Raise `PolicyDenied` where a process listens on a socket below a folder, unless the profile allows sockets.

        Reads /proc alone, for a worker thread.
        """
        if profile.folders.allow_sockets or not folders:
            return
        with open("/proc/net/unix", errors="surrogateescape") as file:  # a path is whatever bytes its maker chose
            listening = parse_listening(file.read())
        for folder in folders:
            source = self.path(folder)
            for path in listening:
                if contains(source, path):
                    raise PolicyDenied(
                        f"folder {folder.name!r}: something listens on {path}, and a command could talk to it; move it, or"
                        " set folders.allow_sockets in the profile",
                        key="folders.source",
                    )


def judge_mode(folder: FolderGrant, profile: Profile) -> None:
    """Raise `PolicyDenied` for a mode the profile does not allow."""
    if folder.mode not in profile.folders.modes:
        allowed = ", ".join(profile.folders.modes) or "none"
        raise PolicyDenied(
            f"folder {folder.name!r}: mode {folder.mode} is not allowed by profile {profile.name} (it allows {allowed})",
            key="folders.mode",
        )


def contains(outer: str, inner: str) -> bool:
    """Whether the path `inner` is `outer` or below it."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


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


def _refused(folder: FolderGrant, why: str) -> InvalidParams:
    return InvalidParams(f"folder {folder.name!r}: {why}", key="folders.source")
