"""Renaming, and what becomes of whose name is whose (`names` has the rules).

Nothing a rename does is refused for the user's sake: the user's name goes along, and a name that is renamed over was written.
A rename that leaves a whiteout behind would delete by another name: EPERM.
"""

from __future__ import annotations

import errno
import os

from coworkd.folderfs.folder import OK, Answer, Folder, Operation, joined
from coworkd.folderfs.fuse_words import Op, Request
from coworkd.folderfs.names import Identity, Path
from coworkd.folderfs.nodes import Node
from coworkd.system import file_calls
from coworkd.system.file_calls import RENAME_EXCHANGE, RENAME_NOREPLACE


class _Place:
    """One of the two names of a rename, as it was before."""

    __slots__ = ("directory", "found", "name", "own", "parent", "path")

    def __init__(self, folder: Folder, parent: Node, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.directory = folder.nodes.directory(parent)
        self.path: Path = (*parent.path(), name)
        self.found = self._look()
        self.own: Identity | None = folder.own(self.directory, name, self.path) if self.found is not None else None

    def _look(self) -> os.stat_result | None:
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    @property
    def at(self) -> tuple[Node, bytes]:
        return self.parent, self.name


def rename(folder: Folder, request: Request) -> Answer:
    flags = request.words[1] if request.opcode == Op.RENAME2 else 0
    if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        return errno.EPERM if flags & file_calls.RENAME_WHITEOUT else errno.EINVAL
    source = _Place(folder, folder.nodes.get(request.node), request.names[0])
    target = _Place(folder, folder.nodes.get(request.words[0]), request.names[1])
    if source.found is None:
        return errno.ENOENT
    if flags == RENAME_EXCHANGE:
        return _exchange(folder, request, source, target)
    own = _rename(source, target, flags)
    if target.found is not None and os.path.samestat(source.found, target.found):
        return OK  # two names of one file: rename(2) does nothing
    node = folder.nodes.find(*source.at, source.found)
    if target.found is not None:
        _replaced(folder, target)
    if node is not None:
        folder.nodes.renamed(node, source.at, target.at)
    _moved(folder, source, target, own)
    folder.told.change("rename", joined(source.path), request.pid, to=joined(target.path))
    return OK


def _rename(source: _Place, target: _Place, flags: int) -> Identity | None:
    """Rename, and tell as what the new name counts."""
    own = source.own
    if own is not None and target.found is None and not flags:
        try:
            file_calls.renameat2(source.directory, source.name, target.directory, target.name, RENAME_NOREPLACE)
        except FileExistsError:
            own = None  # the host was faster: the name is the user's
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that cannot say so
                raise
        else:
            return own
    if flags:
        file_calls.renameat2(source.directory, source.name, target.directory, target.name, flags)
        return own
    os.rename(source.name, target.name, src_dir_fd=source.directory, dst_dir_fd=target.directory)
    return own if target.found is None or target.own is not None else None


def _replaced(folder: Folder, target: _Place) -> None:
    assert target.found is not None
    node = folder.nodes.find(*target.at, target.found)
    if node is not None:
        folder.nodes.unlinked(node, *target.at, target.found)


def _moved(folder: Folder, source: _Place, target: _Place, own: Identity | None) -> None:
    folder.names.move(source.path, target.path, own)
    if source.own is None:
        folder.renames.add(source.path, target.path)
    else:
        folder.renames.forget(target.path)
    names = folder.names.names
    if source.own is not None or target.found is not None:
        names.forget_origin(source.path)
        names.forget_origin(target.path)
        return
    try:
        inode, born = file_calls.inode_and_birth(target.directory, target.name)
    except OSError:
        return
    names.moved_away(source.path, target.path, Identity(inode, born))


def _exchange(folder: Folder, request: Request, source: _Place, target: _Place) -> Answer:
    if target.found is None or source.found is None:
        return errno.ENOENT
    if os.path.samestat(source.found, target.found):
        return OK
    file_calls.renameat2(source.directory, source.name, target.directory, target.name, RENAME_EXCHANGE)
    nodes = folder.nodes.find(*source.at, source.found), folder.nodes.find(*target.at, target.found)
    for node, old, new in ((nodes[0], source.at, target.at), (nodes[1], target.at, source.at)):
        if node is not None:
            folder.nodes.renamed(node, old, new)
    both = source.own is not None and target.own is not None
    folder.renames.swap(source.path, target.path)
    folder.names.swap(source.path, target.path, target.own if both else None, source.own if both else None)
    for each in (source, target):
        folder.names.names.forget_origin(each.path)
    folder.told.change("rename", joined(source.path), request.pid, to=joined(target.path))
    folder.told.change("rename", joined(target.path), request.pid, to=joined(source.path))
    return OK


OPERATIONS: dict[int, Operation] = {Op.RENAME: rename, Op.RENAME2: rename}
