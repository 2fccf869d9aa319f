"""Starting a coworkd-egress for a coworkd that has none.

It gets a uid of its own: the account `coworkd-egress` where there is one, as in an image, else one that nobody has of the range systemd
gives to its dynamic users, so that no account is written on a machine that only tries coworkd.
"""

from __future__ import annotations

import os
import pwd

from coworkd.cli.program_start import answers, program_command, reap, start_program
from coworkd.model.errors import Unavailable
from coworkd.system import accounts

ACCOUNT = "coworkd-egress"
UIDS = range(61184, 65520)
"""systemd.exec(5), DynamicUser=; uids below 65534, nobody's, that no session gets (`model.uids.MAX_UID`)."""


def egress_command(arguments: list[str]) -> list[str]:
    """The argv of a coworkd-egress with `arguments`."""
    return program_command("egressd", arguments)


def ensure_egress(*, runtime_dir: str, linger_s: float | None) -> str:
    """The socket of the coworkd-egress of `runtime_dir`, started now if none answers. Raises `Unavailable`. Blocking."""
    reap()
    path = os.path.join(runtime_dir, "egress.sock")
    if answers(path):
        return path
    # Two that start at the same moment begin to look at different places.
    uid, gid = choose_ids(start=os.stat(runtime_dir).st_ino)
    arguments = ["--socket", path, "--uid", str(uid), "--gid", str(gid)]
    if linger_s is not None:
        arguments += ["--linger", str(linger_s)]
    start_program("coworkd-egress", egress_command(arguments), path)
    return path


def choose_ids(*, start: int = 0) -> tuple[int, int]:
    """The uid and gid of the account, else a free number for both, looked for from some place on. Raises `Unavailable`."""
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        taken, ranges = accounts.taken_uids(), accounts.subordinate_ranges()
        for place in range(len(UIDS)):
            uid = UIDS[(start + place) % len(UIDS)]
            if uid not in taken and not any(uid in given for given in ranges):
                return uid, uid
        raise Unavailable(f"no uid from {UIDS.start} to {UIDS.stop - 1} is free for coworkd-egress") from None
    return account.pw_uid, account.pw_gid
