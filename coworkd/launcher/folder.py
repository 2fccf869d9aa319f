"""What the launcher holds of one folder: how it was asked for, how it stands, and the file system that serves it, where there is one."""

from __future__ import annotations

import contextlib
import os
import socket
from enum import Enum

from coworkd.launcher.errand import Errand
from coworkd.model.folder import MountedAs
from coworkd.model.launch import MountFolder

_WRITABLE = ("rw", "rwd")


class FolderState(Enum):
    MOUNTING = "it is being mounted"
    MOUNTED = "it is mounted"
    UNMOUNTING = "it is being taken away"


class Server:
    """A guarded folder's file system: a child of the launcher, and our end of its socket. Owns the socket until `close`."""

    def __init__(self, errand: Errand, socket_fd: int) -> None:
        self.errand = errand
        self.socket_fd = socket_fd
        self.alive = True
        self.cut_off = False
        """Whether it was parted from its users: it serves nobody any more."""

    def end(self) -> None:
        """Kill it; those who wait for it get ECONNABORTED, later ones ENOTCONN."""
        if self.alive:
            self.errand.kill()

    def part(self) -> None:
        """It serves nobody any more; its socket ends for all who have copies."""
        self.cut_off = True
        with socket.socket(fileno=os.dup(self.socket_fd)) as link, contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        os.close(self.socket_fd)


class Folder:
    """One folder of an open session, from `MountFolder` to the answer of `UnmountFolder`."""

    def __init__(self, request: MountFolder, state: FolderState = FolderState.MOUNTING) -> None:
        self.request = request
        self.state = state
        self.waiter: int | None = request.id
        """The request that is to be answered; None once nobody waits."""
        self.errand: Errand | None = None
        self.server: Server | None = None
        self.mounted_as: MountedAs = "bind"
        self.degraded: tuple[str, ...] = ()
        self.news: tuple[str, ...] = ()
        """To be told once, with the next answer."""

    @property
    def key(self) -> tuple[str, str]:
        return self.request.session, self.request.name

    @property
    def server_pid(self) -> int | None:
        """Who serves it, while it lives."""
        return self.server.errand.pid if self.server is not None and self.server.alive else None

    @property
    def dead(self) -> bool:
        """Whether it is mounted and its file system has ended, or is as good as that."""
        return self.server is not None and (self.server.cut_off or not self.server.alive)

    def is_like(self, request: MountFolder) -> bool:
        """Whether it stands as that asks for. In a guarded one `rw` and `rwd` differ by a rule that its file system is told."""
        mine = self.request
        same_mode = mine.mode == request.mode or (
            self.mounted_as == "guarded" and mine.mode in _WRITABLE and request.mode in _WRITABLE
        )
        return same_mode and (mine.root, mine.source, mine.journal, mine.stage) == (
            request.root,
            request.source,
            request.journal,
            request.stage,
        )
