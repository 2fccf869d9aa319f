"""glibc's heap, told how a small program wants it.

A thread gets an arena of its own by default, up to eight for each CPU, and an arena keeps what its thread has let go: workers that come
and go leave a megabyte each. One arena is enough where one thread does nearly all of the work. Source: mallopt(3).
"""

from __future__ import annotations

from coworkd.system import libc

_M_ARENA_MAX = -8
_mallopt = libc.function("mallopt")


def keep_one_arena() -> bool:
    """Have all threads that are started from now on share the first thread's; whether glibc does so."""
    return bool(_mallopt(_M_ARENA_MAX, 1))
