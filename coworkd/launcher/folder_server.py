"""A folder's own file system, from an open descriptor of its source: mounted, told, and served by this very child until its end.

Rules
- The mount is made with root's rights, the server has the source owner's: what it writes belongs to him, and neither his quota nor
  the disk's reserve is passed by. Where root is the owner it keeps those rights over files that ownership comes to, and no other.
- It is counted with the session's cgroup and never taken by the OOM killer there: a command that eats the memory loses no folder.
- The program is loaded before anybody is told of the mount, so that what is told is about to be served.

Sources: fuse(4), fsopen(2), capabilities(7), ADR 10.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket

from msgspec import Struct

from coworkd.folderfs import mount as fuse_mount
from coworkd.launcher.errand import ErrandError, Report, Teller
from coworkd.model.folder import DeleteRule
from coworkd.system import capabilities, mounts, prctl

_NOFILE = 4096
_ADDRESS_SPACE_BYTES = 2 << 30
_OOM_SCORE_ADJ = b"-1000"
_OWNER_RIGHTS = (
    capabilities.CAP_CHOWN,
    capabilities.CAP_DAC_OVERRIDE,
    capabilities.CAP_DAC_READ_SEARCH,
    capabilities.CAP_FOWNER,
)


class FolderServer(Struct, frozen=True, kw_only=True):
    """What is to be served, as whom, and to whom it belongs."""

    source_fd: int
    source: os.stat_result
    uid: int
    gid: int
    """The session's: all that is served is shown as its own."""
    journal: bytes
    deletes: DeleteRule
    read_only: bool
    cgroup: str | None

    def run(self, teller: Teller) -> None:
        """Mount, report with the detached mount and the socket, serve. Raises `ErrandError`, `OSError` before the report."""
        from coworkd.folderfs.server import serve  # not the launcher's to carry

        fuse_fd = _open_fuse()
        options = fuse_mount.plan_options(fuse_fd=fuse_fd, root_mode=self.source.st_mode)
        attributes = fuse_mount.ATTRIBUTES | (mounts.MOUNT_ATTR_RDONLY if self.read_only else 0)
        mount = mounts.make_file_system(fuse_mount.FILE_SYSTEM, options, attributes=attributes)
        journal_fd = self._open_journal()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        prctl.set_name("coworkd-fs")
        self._become_owner(teller)
        teller.tell(Report(mounted_as="guarded"), (mount, theirs.fileno()))
        os.close(mount)
        theirs.close()
        serve(
            fuse_fd=fuse_fd,
            source_fd=self.source_fd,
            control=ours,
            journal_fd=journal_fd,
            uid=self.uid,
            gid=self.gid,
            deletes=self.deletes,
            read_only=self.read_only,
        )

    def _open_journal(self) -> int | None:
        from coworkd.folderfs.journal_file import open_journal  # nor this

        if not self.journal:
            return None
        try:
            return open_journal(self.journal)
        except OSError as error:
            raise ErrandError("journal", error.errno, f"{os.fsdecode(self.journal)}: {error.strerror}") from error

    def _become_owner(self, teller: Teller) -> None:
        if self.cgroup is not None:
            _write(f"{self.cgroup}/cgroup.procs", b"0")
        with contextlib.suppress(PermissionError):  # where root has no CAP_SYS_RESOURCE (a container)
            _write("/proc/self/oom_score_adj", _OOM_SCORE_ADJ)
        for limit, value in (
            (resource.RLIMIT_NOFILE, _NOFILE),
            (resource.RLIMIT_AS, _ADDRESS_SPACE_BYTES),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (value, value))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        os.chdir("/")
        os.umask(0)  # the kernel has taken the caller's into account
        capabilities.drop_bounding_set()
        os.setgroups([])
        os.setresgid(self.source.st_gid, self.source.st_gid, self.source.st_gid)
        os.setresuid(self.source.st_uid, self.source.st_uid, self.source.st_uid)
        if self.source.st_uid == 0:
            capabilities.keep_only(_OWNER_RIGHTS)
        else:
            capabilities.drop_all()
        prctl.set_no_new_privs()
        prctl.set_undumpable()
        teller.die_with_launcher()


def _open_fuse() -> int:
    try:
        return os.open(fuse_mount.DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        device = os.fsdecode(fuse_mount.DEVICE)
        words = f"{device}: {error.strerror}; a folder in this mode needs it (the kernel's module `fuse`)"
        raise ErrandError("fuse", error.errno, words) from error


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
