"""Which files the kernel cannot execute, though a command would seem to start.

execvp(3), which bubblewrap uses, hands a file that the kernel refuses with ENOEXEC to /bin/sh: right for a script without
`#!`, but a binary of another machine then ends as a syntax error of a shell nobody asked for. So the child looks first, with the
session's uid in the session's tree, and what is no text and no native ELF file is refused as such.

It judges only what it can read; everything else is left to execve(2). Where binfmt_misc knows more formats nothing is judged.
Sources: execvp(3), elf(5), binfmt-misc.rst; the rule "a NUL in the first line is no text" is POSIX's of sh.
"""

from __future__ import annotations

import os
import stat

_BINFMT = "/proc/sys/fs/binfmt_misc"
_HEAD_BYTES = 256
_ELF = b"\x7fELF"
_SCRIPT = b"#!"


class Formats:
    """The formats this kernel executes: scripts and `native`, the head of an ELF file that is one of its own."""

    def __init__(self, executable: bytes) -> None:
        """`executable` is a program that certainly runs here. Raises `OSError` where it cannot be read."""
        self._native = _machine(_read_head(executable))
        self._open_ended = _has_more_formats()

    @property
    def native(self) -> bytes:
        """What tells an ELF file of this machine; empty where nothing is judged."""
        return b"" if self._open_ended else self._native

    def refuses(self, command: bytes, *, search_path: bytes, cwd: bytes) -> bool:
        """Whether `command` is found as execvp(3) would find it and is a file that this kernel has no format for."""
        if self._open_ended:
            return False
        for path in _candidates(command, search_path, cwd):
            try:
                head = _read_head(path)
            except FileNotFoundError:
                continue
            except OSError:
                return False
            return self._is_foreign(head)
        return False

    def _is_foreign(self, head: bytes) -> bool:
        if head.startswith(_ELF):
            return _machine(head) != self._native
        return not head.startswith(_SCRIPT) and b"\0" in head.partition(b"\n")[0]


def _candidates(command: bytes, search_path: bytes, cwd: bytes) -> list[bytes]:
    if b"/" in command:
        return [os.path.join(cwd, command)]
    return [os.path.join(cwd, directory, command) for directory in search_path.split(b":")]


def _read_head(path: bytes) -> bytes:
    """The first bytes of a plain executable file; empty for anything else, which execve(2) refuses in its own words."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        executable = stat.S_ISREG(status.st_mode) and status.st_mode & 0o111
        return os.pread(fd, _HEAD_BYTES, 0) if executable else b""
    finally:
        os.close(fd)


def _machine(head: bytes) -> bytes:
    """EI_CLASS and EI_DATA, and e_machine as it stands."""
    return head[4:6] + head[18:20]


def _has_more_formats() -> bool:
    try:
        return bool(set(os.listdir(_BINFMT)) - {"register", "status"})
    except OSError:
        return False
