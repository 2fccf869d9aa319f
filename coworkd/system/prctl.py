"""prctl(2), through python-prctl where it imports, else through libc.

python-prctl is a build against libcap's headers: its import fails when the running kernel knows more capabilities than the
headers did, so no security step may depend on it being there. Both roads end in the same call.
"""

from __future__ import annotations

import ctypes
from types import ModuleType

from coworkd.system import libc

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


def load_python_prctl() -> ModuleType | None:
    """The python-prctl module, or None where it does not import."""
    try:
        import prctl
    except (ImportError, OSError, AttributeError):
        return None
    module: ModuleType = prctl
    return module


_module = load_python_prctl()
_libc_prctl = libc.function("prctl")


def set_pdeathsig(signal: int) -> None:
    """Have `signal` sent to this process when the *thread* that made it ends; cleared by a change of uid."""
    _call("set_pdeathsig", _PR_SET_PDEATHSIG, signal)


def set_no_new_privs() -> None:
    """No execve(2) from here on can gain privileges; inherited, never undone."""
    _call("set_no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def set_undumpable() -> None:
    """Nobody of the same uid may trace this process or open its memory and descriptors; it leaves no core. An execve(2) undoes it."""
    libc.check(_libc_prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def set_child_subreaper() -> None:
    """Orphans below this process become its children, so it reaps them and learns their rusage."""
    _call("set_child_subreaper", _PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """The thread's name as `ps` shows it, cut at 15 bytes."""
    libc.check(_libc_prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]), 0, 0, 0))


def _call(name: str, option: int, value: int) -> None:
    """By python-prctl's `name`, or by number where the module, or that build of it, has no such call. Raises `OSError`."""
    known = getattr(_module, name, None)
    if known is not None:
        known(int(value))
    else:
        libc.check(_libc_prctl(option, value, 0, 0, 0))
