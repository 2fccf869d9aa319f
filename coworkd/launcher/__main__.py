"""coworkd-launcher --socket PATH --base DIR --bubblewrap PATH [--cgroup DIR | --delegated] [--linger SECONDS]

Started by systemd or by `coworkd local`; speaks `model.launch` on a SEQPACKET socket. `--base` is an empty directory on which session
trees are built. Without `--linger` it waits for ever for a supervisor. `--delegated`: its cgroups go below the one it was started in.
"""

from __future__ import annotations

import contextlib
import gc
import getopt
import os
import signal
import sys

# Its guard and its forker are forked before it loads what only it needs itself: what is imported here, and by what is, they have too.
from coworkd.launcher import child, guard
from coworkd.launcher.forker import Forker
from coworkd.launcher.formats import Formats
from coworkd.system import cgroup, prctl, signals
from coworkd.system.descriptors import raise_descriptor_limit


def main(argv: list[str]) -> int:
    """Run the launcher below its guard; 0 after a wanted end, 2 for unusable arguments, 128 + n if signal n has ended it."""
    try:
        pairs, rest = getopt.getopt(argv, "", ["socket=", "base=", "bubblewrap=", "cgroup=", "delegated", "linger="])
        options = dict(pairs)
        path, base, bubblewrap = options["--socket"], options["--base"], options["--bubblewrap"]
        linger_s = float(options["--linger"]) if "--linger" in options else None
    except (getopt.GetoptError, KeyError, ValueError) as error:
        print(f"coworkd-launcher: {error}\n{__doc__}", file=sys.stderr)
        return 2
    if rest:
        print(f"coworkd-launcher: unexpected {rest[0]!r}", file=sys.stderr)
        return 2
    # Before the guard: both must be out of the cgroup that is divided.
    cgroup_root = cgroup.claim_delegated() if "--delegated" in options else options.get("--cgroup")
    ended = guard.stand_guard()
    if ended is not None:
        return ended
    prctl.set_name("coworkd-launch")
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, child.OWN_PRIORITY)
    prctl.set_child_subreaper()
    with contextlib.suppress(PermissionError):
        os.setsid()  # the terminal's signals are the supervisor's to handle
    wakeup = _open_wakeup()  # before anybody can know of us: a TERM must never leave anything
    # Each kept process holds a handful. A child sets its own before it becomes a sandbox.
    raise_descriptor_limit()
    forker = Forker(Formats(os.fsencode(bubblewrap)))
    with contextlib.suppress(OSError):  # the first command asks again, and is told
        forker.begin()
    _serve(
        path, bubblewrap=bubblewrap, base=base, cgroup_root=cgroup_root, linger_s=linger_s, forker=forker, wakeup=wakeup
    )
    return 0


def _serve(
    path: str,
    *,
    bubblewrap: str,
    base: str,
    cgroup_root: str | None,
    linger_s: float | None,
    forker: Forker,
    wakeup: int,
) -> None:
    from coworkd.launcher import guest_room
    from coworkd.launcher.server import Launcher
    from coworkd.system.supervised import listen_early

    if cgroup_root is not None:
        cgroup.create(cgroup_root)
        _end_leftovers(cgroup_root)
        cgroup.enable_controllers(cgroup_root)
        guest_room.bound(cgroup_root, guest_room.total_memory())
    listener, early = listen_early(path)
    os.rename(early, path)
    launcher = Launcher(
        listener, bubblewrap=bubblewrap, base=base, cgroup_root=cgroup_root, linger_s=linger_s, forker=forker
    )
    gc.collect()
    gc.freeze()
    try:
        launcher.run(wakeup)
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _end_leftovers(cgroup_root: str) -> None:
    """Kill what a launcher that was itself killed left in its sessions' cgroups.

    Its guard has done so already, unless both were killed.
    """
    for name in os.listdir(cgroup_root):
        if name.startswith("s-"):
            cgroup.kill(f"{cgroup_root}/{name}")
            cgroup.remove(f"{cgroup_root}/{name}", wait_s=1.0)


def _open_wakeup() -> int:
    """A descriptor that tells of signals. What an ancestor ignored (nohup) is not handed on to commands."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signals.reset_all()
    for number in child.CAUGHT_SIGNALS:
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)  # no call fails of it: a fork can, where a filter asks somebody first
    for number in child.IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    return read


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
