"""The environment a command starts with: nothing of the host's, a known few, then what was asked.

Order: defaults, with the variables of the proxies, the certificates and the mirrors where the session has such; the session's; the
request's. The later wins, whatever the name (`LD_*` of the loader are the caller's own affair inside). A `TMPDIR` that exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from coworkd.model.errors import InvalidParams
from coworkd.model.session import SessionView
from coworkd.sandbox.proxy_variables import PROXY_VARIABLES, TRUST_VARIABLES

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS_PATH = "/opt/tools/bin"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def compose_environment(session: SessionView, requested: Mapping[str, str], *, tty: bool) -> dict[str, str]:
    """Name → value. Raises `InvalidParams` for a name no shell could set, or a NUL."""
    home = session.home.decode()
    defaults = {
        "HOME": home,
        "USER": session.name,
        "LOGNAME": session.name,
        "SHELL": "/bin/bash",
        "PATH": f"{home}/.local/bin:{TOOLS_PATH}:{PATH}",
        "TERM": "xterm-256color" if tty else "dumb",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": "/tmp",
    }
    if session.proxied:
        defaults.update(PROXY_VARIABLES)
    if session.trust_bundle is not None:
        defaults.update(dict.fromkeys(TRUST_VARIABLES, session.trust_bundle))
    given = {name.upper() for name in (*session.env, *requested)}
    # npm reads its variables in either case, and of two the last it comes by.
    defaults.update({name: value for name, value in session.tool_variables.items() if name.upper() not in given})
    merged = {**defaults, **session.env, **requested}
    for name, value in merged.items():
        if not _NAME.match(name):
            raise InvalidParams(
                f"environment name {name!r} is not usable: letters, digits and '_', no digit first", key="env"
            )
        if "\0" in value:
            raise InvalidParams(f"the value of environment variable {name} holds a NUL", key=f"env.{name}")
    return merged
