"""The walls of coworkd-egress, put up around itself: what it parses comes from untrusted code and from the outside.

Order of `drop`: no core files, not dumpable → bounding set empty, groups, uid, no capability in any set → no_new_privs → Landlock (reading
programs, libraries and /etc, nothing else). Ids and sets are looked at again; what did not hold ends the program. Only Landlock may
be missing, where the kernel has none: that is told as degraded.

`install_filter` comes with the first supervisor: the program is coworkd's, checked by its interpreter. Both bind every thread made
later, so threads are made after them.

Sources: credentials(7), prctl(2), seccomp(2), landlock(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys

from coworkd.system import capabilities, landlock, libc, prctl

_MIN_UID = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_READABLE = ("/usr", "/lib", "/lib64", "/opt", "/etc", "/run/systemd/resolve", "/dev/null", "/dev/urandom")
"""Programs and libraries, name service and certificates. What of it is secret its modes keep from this uid."""

_prctl = libc.function("prctl")


def drop(*, uid: int, gid: int) -> list[str]:
    """Become `uid` for good and give up everything else; returns what the kernel has no wall for.

    Raises `OSError` where a step fails, `RuntimeError` where one did not hold: then nothing may be served. A caller that is not root
    can only stay who it is (tests do).
    """
    if uid < _MIN_UID or gid < _MIN_UID:
        raise OSError(errno.EPERM, "coworkd-egress does not run as root; give it a uid and a gid of its own")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        capabilities.drop_bounding_set()
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    capabilities.drop_all()
    libc.check(_prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
    prctl.set_no_new_privs()
    os.umask(0o077)
    os.chdir("/")
    _look(uid, gid)
    return _close_files()


def install_filter(bpf: bytes) -> None:
    """Install a seccomp program (`sock_filter` records of 8 bytes) on this thread, and so on all that it makes. Raises `OSError`."""
    if not bpf or len(bpf) % 8:
        raise OSError(errno.EINVAL, "that is no seccomp program")
    instructions = ctypes.create_string_buffer(bpf, len(bpf))
    program = _SockFprog(len(bpf) // 8, ctypes.addressof(instructions))
    libc.check(_prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), 0, 0))


class _SockFprog(ctypes.Structure):
    """struct sock_fprog (linux/filter.h)."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _close_files() -> list[str]:
    """Modules are imported lazily (inspection), so Python's own paths stay readable."""
    ours = [path for path in {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path} if path.startswith("/")]
    try:
        landlock.allow_reading_only([*_READABLE, *ours])
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return [f"no Landlock: {error.strerror}; file modes alone keep coworkd-egress from files"]
    return []


def _look(uid: int, gid: int) -> None:
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups() not in ([], [gid]):
        raise RuntimeError(f"coworkd-egress has other ids than {uid}:{gid}: {os.getresuid()} {os.getresgid()}")
    left = capabilities.held()
    if left:
        raise RuntimeError(f"coworkd-egress kept capabilities: {left}")
