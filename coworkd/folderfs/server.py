"""A guarded folder's file system: the program itself, one thread, one process per folder.

`serve` is called in a forked child of the launcher that has already become the owner of the source.
"""

from __future__ import annotations

import socket

from coworkd.model.folder import DeleteRule


def serve(
    *,
    fuse_fd: int,
    source_fd: int,
    control: socket.socket,
    journal_fd: int | None,
    uid: int,
    gid: int,
    deletes: DeleteRule,
    read_only: bool = False,
) -> None:
    """Serve until the file system is unmounted, or `control` ends (the launcher is gone)."""
    raise NotImplementedError
