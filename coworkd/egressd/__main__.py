"""coworkd-egress --socket PATH (--user NAME | --uid N --gid N) [--linger SECONDS]

Started by systemd or by `coworkd local`, as root; speaks `model.egress` on a SEQPACKET socket that only root may connect to, and is the
user `--uid` from then on. Without `--linger` it waits for ever for a supervisor.
"""

from __future__ import annotations

import contextlib
import gc
import getopt
import os
import pwd
import signal
import sys

from coworkd.egressd import lockdown
from coworkd.egressd.inspect import Inspecting
from coworkd.egressd.server import Egress
from coworkd.system import prctl, signals
from coworkd.system.descriptors import raise_descriptor_limit
from coworkd.system.supervised import listen_early


def main(argv: list[str]) -> int:
    """Serve; 0 after a wanted end, 1 where the walls could not be put up, 2 for unusable arguments."""
    try:
        pairs, rest = getopt.getopt(argv, "", ["socket=", "user=", "uid=", "gid=", "linger="])
        options = dict(pairs)
        path = options["--socket"]
        uid, gid = _read_ids(options)
        linger_s = float(options["--linger"]) if "--linger" in options else None
    except (getopt.GetoptError, KeyError, ValueError) as error:
        print(f"coworkd-egress: {error}\n{__doc__}", file=sys.stderr)
        return 2
    if rest:
        print(f"coworkd-egress: unexpected {rest[0]!r}", file=sys.stderr)
        return 2
    prctl.set_name("coworkd-egress")
    raise_descriptor_limit()  # two a tunnel; it may not be possible any more as another user
    with contextlib.suppress(PermissionError):
        os.setsid()  # the terminal's signals are the supervisor's to handle
    wakeup = _open_wakeup()
    # Whoever sees `path` may connect: it gets its name when the walls stand, but while its directory can still be written to.
    listener, early = listen_early(path)
    listener.setblocking(False)
    trusted_uid = os.geteuid()
    os.rename(early, path)
    try:
        degraded = lockdown.drop(uid=uid, gid=gid)
    except (OSError, RuntimeError) as error:
        print(f"coworkd-egress: its walls do not stand, so it does not serve: {error}", file=sys.stderr)
        return 1
    egress = Egress(
        listener,
        linger_s=linger_s,
        degraded=degraded,
        install_filter=lockdown.install_filter,
        inspector=Inspecting(),
        trusted_uid=trusted_uid,
    )
    gc.collect()
    gc.freeze()
    egress.run(wakeup)
    return 0


def _read_ids(options: dict[str, str]) -> tuple[int, int]:
    """Whom to become. Raises `KeyError` where nobody is named, `ValueError` for a number that is none or a name nobody has."""
    if "--user" not in options:
        return int(options["--uid"]), int(options["--gid"])
    try:
        account = pwd.getpwnam(options["--user"])
    except KeyError:
        raise ValueError(f"there is no account {options['--user']!r}; whoever builds the image makes it") from None
    return account.pw_uid, account.pw_gid


def _open_wakeup() -> int:
    """A descriptor that tells of signals."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signals.reset_all()
    signal.signal(signal.SIGTERM, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return read


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
