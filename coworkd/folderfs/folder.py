"""What all operations of one folder share, and what they answer.

An operation takes a `Folder` and a `Request` and answers with
- bytes or a view of bytes, the payload of the answer;
- an int, the errno it failed with;
- None: no answer is due, now or ever.
It may as well raise `OSError`, whose errno is the answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from coworkd.folderfs.fuse_words import MAX_WRITE_BYTES, Request
from coworkd.folderfs.handles import Handles
from coworkd.folderfs.journal import JournaledNames
from coworkd.folderfs.names import Identity, Path
from coworkd.folderfs.nodes import Node, Nodes
from coworkd.folderfs.renames import Renames
from coworkd.folderfs.shown import Shown
from coworkd.folderfs.told import Told
from coworkd.system import file_calls

Answer = bytes | memoryview | int | None
"""See above."""
Operation = Callable[["Folder", Request], Answer]
OK = b""


class Folder:
    """One guarded folder."""

    def __init__(
        self,
        source_fd: int,
        *,
        shown: Shown,
        uid: int,
        gid: int,
        names: JournaledNames,
        told: Told,
        descriptors: int,
        open_files: int,
    ) -> None:
        """`source_fd` stays the caller's. `descriptors` bounds what is kept open of directories. Raises `OSError`."""
        self.source_fd = source_fd
        self.shown = shown
        self.uid = uid
        self.gid = gid
        self.names = names
        self.renames = Renames()
        self.told = told
        self.nodes = Nodes(source_fd, descriptors=descriptors)
        self.handles = Handles(open_files)
        self.read_buffer = memoryview(bytearray(MAX_WRITE_BYTES))

    def own(self, directory_fd: int, name: bytes, path: Path) -> Identity | None:
        """What was recorded of `name`, if it is the session's own and still what it was. Raises `OSError`."""
        recorded = self.names.names.get(path)
        if recorded is None:
            return None
        if not recorded.is_same(*file_calls.inode_and_birth(directory_fd, name)):
            return None
        if recorded.borrowed and os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_nlink < 2:
            return None
        return recorded

    def made(self, directory_fd: int, name: bytes, path: Path, *, borrowed: bool = False) -> None:
        """The session has made `name`. What cannot be looked at counts as the user's."""
        self.renames.forget(path)
        try:
            inode, born = file_calls.inode_and_birth(directory_fd, name)
        except OSError:
            self.names.remove(path)
            return
        self.names.add(path, Identity(inode, born, borrowed))

    def close(self) -> None:
        """Close every descriptor but the source's."""
        self.handles.close_all()
        self.nodes.shrink()


def joined(path: Path) -> bytes:
    return b"/".join(path)


def below(parent: Node, name: bytes) -> Path:
    return (*parent.path(), name)


def number_of(error: OSError) -> int:
    """The errno to answer with: running out of descriptors is ours, not the caller's."""
    number = error.errno or errno.EIO
    return errno.ENFILE if number == errno.EMFILE else number
