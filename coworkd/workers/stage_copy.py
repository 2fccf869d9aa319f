"""One file, copied: its data without its holes, its mode without set-id bits, its times, its `user.` attributes.

Sources: copy_file_range(2), sendfile(2), lseek(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from coworkd.workers.stage_compare import end_of_data, next_data
from coworkd.workers.stage_entries import MODE_BITS

COPY_BYTES = 8 * 1024 * 1024
_OTHER_WAY = frozenset((errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF))


def copy_content(source: int, target: int, size: int, step: Callable[[bytes], None]) -> None:
    """Make the empty file `target` hold the first `size` bytes of `source`, with holes where that has them. Raises `OSError`."""
    offset = next_data(source, 0, size)
    while offset < size:
        end = end_of_data(source, offset, size)
        while offset < end:
            copied = _copy_some(source, target, offset, min(COPY_BYTES, end - offset))
            if copied == 0:
                break
            offset += copied
            step(b"")
        offset = next_data(source, max(offset, end), size)
    if os.fstat(source).st_size < size:
        raise OSError(errno.ESTALE, "the file became shorter while it was copied")
    os.ftruncate(target, size)


def copy_attributes(source: int, target: int, found: os.stat_result, *, uid: int, gid: int) -> None:
    """Owner, mode, times and `user.` attributes, in an order in which none undoes another. Raises `OSError`."""
    now = os.fstat(target)
    if (now.st_uid, now.st_gid) != (uid, gid):
        os.fchown(target, uid, gid)
    copy_user_attributes(source, target)
    os.fchmod(target, found.st_mode & MODE_BITS)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def copy_user_attributes(source: int, target: int) -> None:
    """The `user.` ones, as far as the target's file system takes them."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(source):
            if name.startswith("user."):
                with contextlib.suppress(OSError):
                    os.setxattr(target, name, os.getxattr(source, name))


def _copy_some(source: int, target: int, offset: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, offset, offset)
    except OSError as error:
        if error.errno not in _OTHER_WAY:
            raise
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, offset, length)
