"""The environment a command starts with: nothing of the host's, a known few, then what was asked.

Order: defaults, the session's, the request's; the later wins, except for names a caller may not set (`LD_*` of the loader are the
caller's own affair inside, so they may). A `TMPDIR` that exists; no proxy variables until there is a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from coworkd.model.errors import InvalidParams
from coworkd.model.session import SessionView

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def compose_environment(session: SessionView, requested: Mapping[str, str], *, tty: bool) -> dict[str, str]:
    """Name → value. Raises `InvalidParams` for a name no shell could set, or a NUL."""
    home = session.home.decode()
    defaults = {
        "HOME": home,
        "USER": session.name,
        "LOGNAME": session.name,
        "SHELL": "/bin/bash",
        "PATH": f"{home}/.local/bin:{PATH}",
        "TERM": "xterm-256color" if tty else "dumb",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": "/tmp",
    }
    merged = {**defaults, **session.env, **requested}
    for name, value in merged.items():
        if not _NAME.match(name):
            raise InvalidParams(
                f"environment name {name!r} is not usable: letters, digits and '_', no digit first", key="env"
            )
        if "\0" in value:
            raise InvalidParams(f"the value of environment variable {name} holds a NUL", key=f"env.{name}")
    return merged
