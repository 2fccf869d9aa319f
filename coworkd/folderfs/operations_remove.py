"""Deletes: what the session has made may go, anything else is the user's and follows the rule.

Rules
- Own names go at once, whatever the rule.
- `allow` deletes, `deny` is EPERM, `ask` does not answer until there is a verdict. Before that, what would fail anyway fails: a directory
  that is not empty is ENOTEMPTY and asks nobody.
- A user's file that the session has renamed away, and made anew where it was, may go; the new one is the user's from then on (`names`).
- A verdict is carried out on the directory that was asked about, and on the file that was asked about: ENOENT or EPERM otherwise.
"""

from __future__ import annotations

import errno
import os
import stat

from coworkd.folderfs.asks import Ask, Asks
from coworkd.folderfs.folder import OK, Answer, Folder, below, joined, number_of
from coworkd.folderfs.fuse_words import Op, Request
from coworkd.folderfs.names import Path
from coworkd.folderfs.nodes import Node
from coworkd.model.folder import DeleteRule
from coworkd.system import file_calls

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Removals:
    """Deletes in one folder, and the rule they follow."""

    def __init__(self, folder: Folder, asks: Asks, deletes: DeleteRule) -> None:
        self.folder = folder
        self.asks = asks
        self.deletes: DeleteRule = deletes

    def remove(self, request: Request) -> Answer:
        """UNLINK and RMDIR."""
        is_directory = request.opcode == Op.RMDIR
        folder = self.folder
        parent, name = folder.nodes.get(request.node), request.names[0]
        directory = folder.nodes.directory(parent)
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        path = below(parent, name)
        if self.deletes == "allow" or folder.own(directory, name, path) is not None:
            return self._remove(parent, directory, name, path, found, is_directory=is_directory, pid=request.pid)
        origin = None if is_directory else self._origin(directory, name, path, found)
        if origin is not None:
            folder.names.disown(origin)  # first: whatever happens in between, the user has one of the two
            return self._remove(parent, directory, name, path, found, is_directory=is_directory, pid=request.pid)
        if self.deletes == "deny":
            return errno.EPERM
        if is_directory and not _is_empty(directory, name):
            return errno.ENOTEMPTY
        asked = self.asks.add(
            request.unique,
            parent=parent,
            directory=directory,
            name=name,
            path=joined(path),
            was=joined(folder.renames.before(path) or ()),
            found=found,
            born=file_calls.inode_and_birth(directory, name)[1],
            is_directory=is_directory,
            pid=request.pid,
        )
        return None if asked else errno.EPERM

    def carry_out(self, ask: Ask, *, allow: bool) -> Answer:
        """What the request is answered with; the ask was taken, and its descriptor is closed here."""
        try:
            if not allow:
                return errno.EPERM
            found = os.stat(ask.name, dir_fd=ask.directory, follow_symlinks=False)
            if not ask.is_of(found, file_calls.inode_and_birth(ask.directory, ask.name)[1]):
                return errno.EPERM
            path = below(ask.parent, ask.name)
            return self._remove(
                ask.parent, ask.directory, ask.name, path, found, is_directory=ask.is_directory, pid=ask.pid
            )
        except OSError as error:
            return number_of(error)
        finally:
            os.close(ask.directory)

    def _remove(
        self,
        parent: Node,
        directory: int,
        name: bytes,
        path: Path,
        found: os.stat_result,
        *,
        is_directory: bool,
        pid: int,
    ) -> Answer:
        if is_directory:
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
        folder = self.folder
        folder.names.remove(path)
        folder.names.names.forget_origin(path)
        folder.renames.forget(path)
        node = folder.nodes.find(parent, name, found)
        if node is not None:
            folder.nodes.unlinked(node, parent, name, found)
        folder.told.change("rmdir" if is_directory else "delete", joined(path), pid)
        return OK

    def _origin(self, directory: int, name: bytes, path: Path, found: os.stat_result) -> Path | None:
        """What the user's `name` was called before, where a file of the same kind and the session's own stands there now."""
        folder = self.folder
        origin = folder.names.names.origin(path, *file_calls.inode_and_birth(directory, name))
        if origin is None:
            return None
        fd = os.open(b".", _DIRECTORY, dir_fd=folder.source_fd)
        try:
            for each in origin[:-1]:
                below_fd = os.open(each, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below_fd
            now = os.stat(origin[-1], dir_fd=fd, follow_symlinks=False)
            same_kind = stat.S_IFMT(now.st_mode) == stat.S_IFMT(found.st_mode)
            return origin if same_kind and folder.own(fd, origin[-1], origin) is not None else None
        except OSError:
            return None
        finally:
            os.close(fd)


def _is_empty(directory: int, name: bytes) -> bool:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    finally:
        os.close(fd)
