from __future__ import annotations

import os

from coworkd.system import libc
from coworkd.system.priority import yield_to_others

_SYS_IOPRIO_GET = {"x86_64": 252, "aarch64": 31}


def test_it_stands_behind_everybody_else() -> None:
    child = os.fork()
    if child == 0:
        before = os.nice(0)
        yield_to_others()
        number = _SYS_IOPRIO_GET[os.uname().machine]
        idle = libc.syscall(number, 1, 0) >> 13 == 3
        os._exit(0 if idle and os.nice(0) == min(before + 10, 19) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
