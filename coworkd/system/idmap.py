"""A user namespace that exists only as a descriptor: the map of an idmapped mount.

In such a map the inner id is what the disk holds and the outer id what the mount shows (mount_setattr(2), user_namespaces(7)).
Only for single-threaded programs: it forks.
"""

from __future__ import annotations

import os

from coworkd.system import namespaces


def open_user_namespace(*, uid: tuple[int, int], gid: tuple[int, int]) -> int:
    """A descriptor of a namespace that maps one uid and one gid, each (on disk, shown); the caller closes it. Raises `OSError`."""
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold_write)
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            os.write(ready_write, b"+")
            os.read(hold_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(hold_read)
    try:
        if os.read(ready_read, 1) != b"+":
            raise OSError(1, "no new user namespace could be made")
        for name, (disk, shown) in (("uid_map", uid), ("gid_map", gid)):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(f"{disk} {shown} 1")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(hold_write)
        os.waitpid(pid, 0)
