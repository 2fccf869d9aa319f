"""fork(2), straight into a cgroup.

Moving a process into a cgroup by writing `cgroup.procs` waits for an RCU grace period, 10 ms and more; a child made with
CLONE_INTO_CGROUP is born there and waits for nothing. Only for single-threaded programs: no fork handlers run, and the
interpreter's lock is held throughout. Sources: clone(2), Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct

_SYS_CLONE3 = 435
_CLONE_PARENT, _CLONE_INTO_CGROUP = 0x8000, 0x200000000
_CLONE_ARGS = "=11Q"
"""flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup."""
_SIZE = struct.calcsize(_CLONE_ARGS)

_held = ctypes.PyDLL("libc.so.6", use_errno=True).syscall
_held.restype = ctypes.c_long


def fork_for_parent(cgroup_fd: int | None) -> int:
    """Make a child of our parent's, who waits for it: its pid here, 0 in the child, which is in the cgroup `cgroup_fd` (a directory's
    descriptor) if one is given.

    Raises `OSError`: EAGAIN at a limit, EBUSY where the cgroup has children with controllers.
    """
    flags = _CLONE_PARENT if cgroup_fd is None else _CLONE_PARENT | _CLONE_INTO_CGROUP
    # The signal that our parent gets at its end is the one it gets at ours: none can be asked for.
    words = (flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, cgroup_fd or 0)
    arguments = ctypes.create_string_buffer(struct.pack(_CLONE_ARGS, *words), _SIZE)
    pid = int(_held(ctypes.c_long(_SYS_CLONE3), arguments, ctypes.c_long(_SIZE)))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid
