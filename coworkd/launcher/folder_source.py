"""The first steps of mounting a folder, in a child: find the source, see that it answers, make a detached mount of it.

Rules
- The source is looked up below the root without following a symbolic link and without leaving it; from then on only its descriptor
  counts. Who replaces it meanwhile gets what was found mounted, or nothing.
- Only directories and plain files: whoever opens a fifo waits, a device is the machine's, and a socket reaches its listener.
- Every mount is without set-user-id bits and devices, and of one file system: what is mounted below the source does not come along.
- Where the owner is another than the session, the kernel maps him (an idmapped mount). Where it cannot, our own file system stands in
  for him, and this child becomes its server (`folder_server`).

What hangs here hangs in this child alone, and the launcher counts the seconds. It attaches nothing: `folder_place` does.
Sources: openat2(2), open_tree(2), mount_setattr(2), ADR 10.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Literal, NamedTuple

from msgspec import Struct

from coworkd.launcher import folder_server
from coworkd.launcher.errand import ErrandError, Report, Teller
from coworkd.launcher.folder_walls import refuse_walled
from coworkd.model.folder import DeleteRule
from coworkd.model.launch import MountFolder
from coworkd.system import idmap, mounts
from coworkd.system.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_LOOKUP = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_ATTRIBUTES = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV
_EVERYBODY_READS = stat.S_IROTH | stat.S_IXOTH
_UNMAPPABLE = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
_KINDS = {
    stat.S_IFLNK: (errno.ELOOP, "a symbolic link"),
    stat.S_IFIFO: (errno.EINVAL, "a fifo"),
    stat.S_IFSOCK: (errno.EINVAL, "a socket"),
    stat.S_IFCHR: (errno.EINVAL, "a device"),
    stat.S_IFBLK: (errno.EINVAL, "a device"),
}


class View(NamedTuple):
    """How the source is to be seen."""

    read_only: bool
    guarded: Literal["always", "unmapped", "never"]
    deletes: DeleteRule = "deny"


class FolderSource(Struct, frozen=True, kw_only=True):
    """What the child is made for: a folder of a session's."""

    request: MountFolder
    uid: int
    gid: int
    cgroup: str | None
    """Where a file system's server belongs."""

    def run(self, teller: Teller) -> None:
        """Report with the detached mount, and of a guarded folder its socket; such a one is served until its end."""
        found, status = look_up(self.request)
        probe(found, status, self.request)
        view = plan_view(self.request, status)
        if view.guarded == "always":
            self._guard(teller, found, status, view)
            return
        clone = mounts.open_tree(found, recursive=False)
        own = status.st_uid == self.uid
        mapped = self._map_owner(clone, status)
        if not (mapped or own) and view.guarded == "unmapped":
            os.close(clone)
            self._guard(teller, found, status, view)
            return
        read_only = mounts.MOUNT_ATTR_RDONLY if view.read_only else 0
        attributes = _ATTRIBUTES | read_only
        mounts.mount_setattr(clone, set_attributes=attributes, propagation=mounts.MS_PRIVATE, recursive=False)
        report = Report(
            mounted_as="idmapped" if mapped else "bind",
            degraded=() if mapped or own else ("files keep their owner: that file system cannot map it",),
            is_directory=stat.S_ISDIR(status.st_mode),
        )
        teller.tell(report, (clone,))

    def _map_owner(self, clone: int, status: os.stat_result) -> bool:
        if (status.st_uid, status.st_gid) == (self.uid, self.gid):
            return False
        try:
            namespace = idmap.open_user_namespace(uid=(status.st_uid, self.uid), gid=(status.st_gid, self.gid))
            try:
                mounts.mount_setattr(clone, set_attributes=0, user_namespace=namespace, recursive=False)
            finally:
                os.close(namespace)
        except OSError as error:  # EPERM: this machine gives no user namespaces; the others are the file system's
            if error.errno not in _UNMAPPABLE:
                raise
            return False
        return True

    def _guard(self, teller: Teller, found: int, status: os.stat_result, view: View) -> None:
        # A mount of the server's own: what is mounted below the source is not on it, and what it may not do the kernel sees to.
        clone = mounts.open_tree(found, recursive=False)
        os.close(found)
        read_only = mounts.MOUNT_ATTR_RDONLY if view.read_only else 0
        attributes = _ATTRIBUTES | read_only
        mounts.mount_setattr(clone, set_attributes=attributes, propagation=mounts.MS_PRIVATE, recursive=False)
        folder_server.FolderServer(
            source_fd=clone,
            source=status,
            uid=self.uid,
            gid=self.gid,
            journal=self.request.journal,
            deletes=view.deletes,
            read_only=view.read_only,
            cgroup=self.cgroup,
        ).run(teller)


def look_up(request: MountFolder) -> tuple[int, os.stat_result]:
    """A path descriptor of the source, and what it is. Raises `ErrandError`."""
    where = os.fsdecode(request.source)
    try:
        root = os.open(request.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ErrandError("source", error.errno, f"{os.fsdecode(request.root)}: {error.strerror}") from error
    try:
        found = openat2(root, request.source, os.O_PATH | os.O_NOFOLLOW, resolve=_LOOKUP)
    except OSError as error:
        raise ErrandError("source", error.errno, f"{where}: {_why(error)}") from error
    finally:
        os.close(root)
    status = os.fstat(found)
    kind = stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFDIR, stat.S_IFREG):
        number, what = _KINDS.get(kind, (errno.EINVAL, "of an unknown kind"))
        raise ErrandError("source", number, f"{where} is {what}; a folder is a directory or a plain file")
    refuse_walled(found, request.apart_from)
    return found, status


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "there is a symbolic link on the way; name the directory itself"
    if error.errno == errno.EXDEV:
        return "it leads out of where folders may be"
    return error.strerror or str(error)


def probe(found: int, status: os.stat_result, request: MountFolder) -> None:
    """See whether the source answers: its file system, and its first entry or byte. Raises `ErrandError`."""
    path = f"/proc/self/fd/{found}"
    try:
        os.statvfs(path)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                next(entries, None)
        else:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.read(fd, 1)
            os.close(fd)
    except OSError as error:
        if error.errno not in (
            errno.EACCES,
            errno.EPERM,
        ):  # it has answered: what root may not read on a share, its owner may
            raise ErrandError("probe", error.errno, f"{os.fsdecode(request.source)}: {error.strerror}") from error


def plan_view(request: MountFolder, status: os.stat_result) -> View:
    """What becomes of a source of this kind in that mode. Raises `ErrandError` for a single file that is to be staged."""
    if not stat.S_ISDIR(status.st_mode):
        if request.mode == "staged":
            raise ErrandError("source", errno.ENOTDIR, "a single file cannot be staged; share its directory")
        return View(read_only=request.mode == "ro", guarded="never")
    if request.mode == "rw":
        return View(read_only=False, guarded="always", deletes=request.deletes)
    if request.mode == "rwd":
        return View(read_only=False, guarded="unmapped", deletes="allow")
    readable = status.st_mode & _EVERYBODY_READS == _EVERYBODY_READS
    return View(read_only=True, guarded="never" if request.mode == "ro" and readable else "unmapped")
