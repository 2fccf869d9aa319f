"""Landlock: a process gives up what it can reach in the file system, and more, without any privilege.

One ruleset, made and enforced at once: reading below the given paths stays possible, everything else that this kernel's
Landlock knows is refused: writing, making, executing, device ioctls, binding TCP ports, connecting to abstract sockets and signalling
processes outside. Connecting TCP stays possible; pathname unix sockets are not Landlock's. Inherited, never undone.

Sources: landlock(7), linux/landlock.h (ABI 1: files, 2: refer, 3: truncate, 4: TCP, 5: device ioctl, 6: scopes).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable

from coworkd.system import libc

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_FS_READ_FILE = 1 << 2
_FS_READ_DIR = 1 << 3
_FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""ABI → how many rights over files it knows; the newest known one's for later ones."""
_NET_BIND_TCP = 1
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1, 2


def abi_version() -> int:
    """What this kernel's Landlock knows; 0 where there is none, or it is switched off."""
    try:
        return libc.syscall(_SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def allow_reading_only(paths: Iterable[str]) -> int:
    """Keep reading below `paths`, those that exist, and nothing else; returns the ABI it was done with.

    The calling thread must have no_new_privs, and threads that live already are not bound. Raises `OSError`: ENOSYS where
    there is no Landlock.
    """
    abi = abi_version()
    if abi == 0:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock, or it is not in its list of security modules")
    ruleset = libc.syscall(_SYS_CREATE_RULESET, *_attributes(abi), 0)
    try:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                _allow_beneath(ruleset, path)
        libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _attributes(abi: int) -> tuple[bytes, int]:
    """struct landlock_ruleset_attr as far as `abi` has it, and its size."""
    rights = (1 << _FS_RIGHTS_BY_ABI.get(abi, max(_FS_RIGHTS_BY_ABI.values()))) - 1
    fields = [rights]
    if abi >= 4:
        fields.append(_NET_BIND_TCP)
    if abi >= 6:
        fields.append(_SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL)
    record = struct.pack(f"={len(fields)}Q", *fields)
    return record, len(record)


def _allow_beneath(ruleset: int, path: str) -> None:
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _FS_READ_FILE | (_FS_READ_DIR if os.path.isdir(path) else 0)
        record = struct.pack("=Qi", rights, found)  # struct landlock_path_beneath_attr is packed
        libc.syscall(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, record, 0)
    finally:
        os.close(found)
