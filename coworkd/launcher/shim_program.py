"""The shim as its interpreter gets it: compiled, where that interpreter is of our own version; else its source.

What a parser leaves in memory stays there while the shim waits, and is torn down at the command's exec: 0.5 MB, and a twentieth of that
exec. Python tells a compiled file by its first bytes, whatever its name; the format is the same for all releases of a minor version.

Source: PEP 552 (the header), importlib.util.MAGIC_NUMBER.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys

from coworkd import sandbox
from coworkd.system.memfd import make_sealed

_NEVER_STALE = bytes(12)
"""Flags, time and size: nobody compares them for a file that is executed itself."""


class ShimProgram:
    """Opens each form once, and keeps it."""

    def __init__(self) -> None:
        self._kept: dict[bool, int] = {}

    def open(self, python: bytes) -> int:
        """A sealed file for the interpreter `python`; stays ours. Raises `OSError`."""
        compiled = is_ours(python)
        if compiled not in self._kept:
            self._kept[compiled] = make_sealed("coworkd-shim", compile_shim() if compiled else read_shim())
        return self._kept[compiled]


def is_ours(python: bytes) -> bool:
    """Whether the interpreter behind the link `python` is of the version that we run in: Debian names the file after it."""
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return sys.implementation.name == "cpython" and os.path.basename(os.path.realpath(python)) == os.fsencode(ours)


def read_shim() -> bytes:
    with open(os.path.join(os.path.dirname(sandbox.__file__), "shim.py"), "rb") as file:
        return file.read()


def compile_shim() -> bytes:
    """As Python keeps what it has compiled."""
    code = compile(read_shim(), "shim", "exec", dont_inherit=True, optimize=2)
    return importlib.util.MAGIC_NUMBER + _NEVER_STALE + marshal.dumps(code)
