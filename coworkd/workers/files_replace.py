"""A file that gets new bytes as a whole: written aside, made durable, and put in its place by one rename.

Rules
- Until `commit` nobody sees anything, and `abandon` leaves nothing. The bytes lie in a file without a name where the file system has such
  (O_TMPFILE), so that not even SIGKILL leaves one; elsewhere under a name of its own.
- A file that was there keeps its permission bits; set-user-id bits go with the old bytes.
- Where its directory takes no new file, or it is a mount point of its own (a folder that is a single file), a file that is there and can be
  written is written over in place: `atomic` is False then. The bytes wait in the home until all have come.

Sources: open(2) O_TMPFILE, linkat(2), rename(2), fsync(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from coworkd.archive.unpack import temporary_name
from coworkd.model.files import Create
from coworkd.system.file_calls import RENAME_NOREPLACE, renameat2
from coworkd.workers.files_view import open_directory, open_target, refuse_kernel_files, refuse_special

_NO_TMPFILE = frozenset([errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS])
_CLOSED = frozenset([errno.EACCES, errno.EPERM, errno.EROFS])
_IN_PLACE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_COPY_BYTES = 1024 * 1024


class Replacement:
    """New bytes for one file; write them to `fd`, then `commit`. Use it in a `with`, which abandons what was not committed."""

    def __init__(self, path: bytes, *, mode: int, create: Create, home: bytes) -> None:
        """Raises `OSError` (EEXIST, ENOENT by `create`; EISDIR), `Refused`."""
        self.atomic = True
        self._create = create
        self._parent, self._name, self._there = open_target(path)
        self.fd = -1
        self._temporary: tuple[int, bytes] | None = None
        try:
            self._judge()
            there = self._there
            self._mode = (mode if there is None else stat.S_IMODE(there.st_mode)) & 0o777
            self._open_aside(home)
        except BaseException:
            self.close()
            raise

    def commit(self) -> None:
        """Put it in place. Raises `OSError`, and then nothing has changed, or in place not all (told by `atomic`)."""
        os.fchmod(self.fd, self._mode)
        os.fsync(self.fd)
        if not self.atomic:
            self._copy_in_place()
            return
        try:
            self._put()
        except OSError as error:
            # EBUSY, or EXDEV: a mount point, over which nothing is renamed.
            if self._there is None or error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            self.atomic = False
            self._copy_in_place()
            return
        with contextlib.suppress(OSError):  # a directory that cannot be read, or a file system that has no such word
            directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._parent)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def close(self) -> None:
        """Let go of everything; what was not committed is gone. Idempotent."""
        self._unlink_temporary()
        for fd in (self.fd, self._parent):
            if fd >= 0:
                os.close(fd)
        self.fd = self._parent = -1

    def __enter__(self) -> Replacement:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        refuse_kernel_files(self._parent)
        if self._there is None:
            if self._create == "existing":
                raise OSError(errno.ENOENT, "there is no such file")
            return
        if self._create == "new":
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        refuse_special(self._there)

    def _open_aside(self, home: bytes) -> None:
        try:
            self.fd = self._open_unnamed(self._parent, keep_name=True)
        except OSError as error:
            if self._there is None or error.errno not in _CLOSED:
                raise
        else:
            return
        # Whether the file itself can be written is known before its bytes come.
        os.close(os.open(self._name, _IN_PLACE, dir_fd=self._parent))
        self.atomic = False
        directory = open_directory(home)
        try:
            self.fd = self._open_unnamed(directory, keep_name=False)
        finally:
            os.close(directory)

    def _open_unnamed(self, directory: int, *, keep_name: bool) -> int:
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        name = temporary_name()
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        if keep_name:
            self._temporary = (directory, name)
        else:
            os.unlink(name, dir_fd=directory)
        return fd

    def _put(self) -> None:
        if self._temporary is None:
            if self._there is None:
                try:
                    self._link(self._name)
                except FileExistsError:
                    if self._create == "new":
                        raise
                else:
                    return
            name = temporary_name()
            self._link(name)
            self._temporary = (self._parent, name)
        _, temporary = self._temporary
        if self._create == "new":
            self._rename_new(temporary)
        else:
            os.rename(temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._temporary = None

    def _rename_new(self, temporary: bytes) -> None:
        try:
            renameat2(self._parent, temporary, self._parent, self._name, RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            os.link(temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent, follow_symlinks=False)
            os.unlink(temporary, dir_fd=self._parent)

    def _link(self, name: bytes) -> None:
        os.link(f"/proc/self/fd/{self.fd}".encode(), name, dst_dir_fd=self._parent, follow_symlinks=True)

    def _copy_in_place(self) -> None:
        target = os.open(self._name, _IN_PLACE, dir_fd=self._parent)
        try:
            refuse_special(os.fstat(target))
            size = os.fstat(self.fd).st_size
            position = 0
            while data := os.pread(self.fd, _COPY_BYTES, position):
                view = memoryview(data)
                while view:
                    view = view[os.write(target, view) :]
                position += len(data)
            os.ftruncate(target, size)
            os.fsync(target)
        finally:
            os.close(target)

    def _unlink_temporary(self) -> None:
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary[1], dir_fd=temporary[0])
