"""The steps of the launcher's child, in the order that makes each one hold: first all that belongs to the session, then a wait
for the order, then the exec of bubblewrap.

Order (DESIGN §7): cgroup (it is born there, see `system.clone`), oom score, the session's mount and network namespaces, a new
session keyring, groups, uid, no_new_privs, parent-death signal and then the check that the parent is still there, default
signals, empty mask, umask, descriptors; then, by the order, resource limits, which are only ever lowered. Root ends at the uid;
bubblewrap never runs as root, and starts with an empty environment.

A child that waits holds nothing but its two ends: a socket for the order and a pipe for an error. The end of the socket is its
own end, and so is the launcher's. A step that fails is told through the pipe as `stage errno`; the pipe closes by itself at a
good exec.

While nobody waits for it, it goes once through all that an order will ask for: its memory is still the forker's, and hardly a page of
the libraries' code is mapped, so the first time costs a page fault at every other step.

Descriptors of an order arrive as 3, 4, 5 … in the order sent, because nothing else below `_FD_ORDER` is open; the last three
become 0, 1 and 2.

No msgspec here, nor what needs it: what is loaded here is unmapped by bubblewrap's exec while somebody waits for it, half a
millisecond for the launcher's own memory.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
from typing import NamedTuple

from coworkd.launcher.formats import Formats
from coworkd.launcher.order import ORDER_LIMIT_BYTES, Order, decode_order, encode_order
from coworkd.model.uids import MIN_UID
from coworkd.system import descriptors, keyring, namespaces, prctl

FD_ARGS, FD_BASE_FILTER, FD_ADMIN_FILTER, FD_STATUS, FD_GATE = range(3, 8)
FD_LINK, FD_SHIM = 7, 8
"""Where a shim waits there is no gate, but its link and its source."""
CAUGHT_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)
IGNORED_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
"""What the launcher ignores (Python itself ignores the last two); an ignored signal would stay so across an exec."""
OWN_PRIORITY = -5
"""The launcher's nice value: whoever starts and ends commands is not outrun by them. A command has 0."""
_FD_ORDER, _FD_ERROR = 60, 61
_NAME = "coworkd-standby"
_OOM_SCORE_ADJ = b"100"
_ANCILLARY_BYTES = socket.CMSG_SPACE(16 * 4)


class Station(NamedTuple):
    """What a child is made for: one session. Descriptors are the launcher's."""

    launcher_pid: int
    uid: int
    gid: int
    mount_namespace: int
    network_namespace: int
    order_fd: int
    error_fd: int
    ahead: bool
    """Whether its order is still to be asked for: there is time then."""


_REHEARSED = encode_order(
    Order(
        executable=b"",
        command=b"/bin/true",
        cwd=b"/",
        search_path=b"/bin",
        rlimits=((resource.RLIMIT_NOFILE, 2**31), (resource.RLIMIT_CORE, 2**62)),
        argv=(b"bwrap", b"--args", b"%d" % FD_ARGS, b"--", b"/bin/true"),
    )
)
"""An order that can be carried out and changes nothing: its limits are above or the same as any other's, its executable has no name."""


def run(station: Station, formats: Formats) -> None:
    """Take the station, wait for the order, become the sandbox. Never returns."""
    error_fd = station.error_fd
    stage = ["start"]
    try:
        _take_station(station, stage)
        error_fd = _FD_ERROR
        if station.ahead:
            stage[0] = "rehearsal"
            _rehearse(formats)
        stage[0] = "order"
        order = _wait_order()
        if order is not None:
            stage[0] = "rlimits"
            _set_limits(order.rlimits)
            stage[0] = "not_executable"
            if order.command and formats.refuses(order.command, search_path=order.search_path, cwd=order.cwd):
                raise OSError(errno.ENOEXEC, "no format of this kernel")
            stage[0] = "exec"
            os.execve(order.executable, order.argv, {})
        os._exit(0)
    except OSError as error:
        os.write(error_fd, f"{stage[0]} {error.errno}".encode())
    except BaseException as error:  # noqa: BLE001 - a forked child must never go on as a second launcher
        os.write(error_fd, f"{stage[0]} 0 {error!r}".encode())
    os._exit(127)


def _take_station(station: Station, stage: list[str]) -> None:
    """Every step that needs root, then the loss of it. `stage[0]` says how far it came."""
    if station.uid < MIN_UID or station.gid < MIN_UID:
        raise PermissionError(1, "a uid or gid below 1001")
    prctl.set_name(_NAME)
    _set_oom_score()
    os.setpriority(os.PRIO_PROCESS, 0, 0)  # the launcher's own is higher
    stage[0] = "mount_namespace"
    namespaces.setns(station.mount_namespace, namespaces.CLONE_NEWNS)
    stage[0] = "network_namespace"
    namespaces.setns(station.network_namespace, namespaces.CLONE_NEWNET)
    stage[0] = "keyring"
    keyring.join_new_session_keyring()
    stage[0] = "uid"
    os.setgroups([])
    os.setresgid(station.gid, station.gid, station.gid)
    os.setresuid(station.uid, station.uid, station.uid)
    stage[0] = "no_new_privs"
    prctl.set_no_new_privs()
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != station.launcher_pid:
        os._exit(127)
    stage[0] = "signals"
    signal.set_wakeup_fd(-1)
    for number in (*CAUGHT_SIGNALS, *IGNORED_SIGNALS):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    stage[0] = "descriptors"
    # By way of numbers above both: a launcher with many descriptors may have given out these very two.
    parked = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FD_ERROR + 1) for fd in (station.order_fd, station.error_fd)]
    os.dup2(parked[0], _FD_ORDER, inheritable=False)
    os.dup2(parked[1], _FD_ERROR, inheritable=False)
    descriptors.close_range(3, _FD_ORDER - 1)
    descriptors.close_range(_FD_ERROR + 1)


def _set_oom_score() -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(fd, _OOM_SCORE_ADJ)
    os.close(fd)


def _set_limits(rlimits: tuple[tuple[int, int], ...]) -> None:
    for number, value in rlimits:
        _, hard = resource.getrlimit(number)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (lowered, lowered))


def _rehearse(formats: Formats) -> None:
    order = decode_order(_REHEARSED)
    _set_limits(order.rlimits)
    formats.refuses(order.command, search_path=order.search_path, cwd=order.cwd)
    with contextlib.suppress(FileNotFoundError):
        os.execve(order.executable, order.argv, {})


def _wait_order() -> Order | None:
    """The order, with its descriptors in place; None if the launcher has no use for this child any more."""
    with socket.socket(fileno=_FD_ORDER) as link:
        # Without MSG_CMSG_CLOEXEC: they are meant for bubblewrap.
        data, ancillary, flags, _ = link.recvmsg(ORDER_LIMIT_BYTES, _ANCILLARY_BYTES)
    if not data:
        return None
    fds = array.array("i")
    fds.frombytes(b"".join(content for _, _, content in ancillary))
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or list(fds) != list(range(3, 3 + len(fds))):
        raise OSError(9, f"descriptors {list(fds)} are not where they belong")
    if data == b"\0":
        message = fds.pop()
        data = os.pread(message, os.fstat(message).st_size, 0)
        os.close(message)
    for number, fd in enumerate(fds[-3:]):
        os.dup2(fd, number)
    descriptors.close_range(fds[-3], fds[-1])
    return decode_order(data)
