"""The steps of the launcher's child, between fork and the exec of bubblewrap, in the order that makes each one hold.

Order (DESIGN §7): cgroup (it is born there, see `system.clone`), oom score, resource limits, the session's mount and
network namespaces, a new session keyring, groups, uid, no_new_privs, parent-death signal and then the check that the
parent is still there, default signals, empty mask, umask, descriptors, exec with an empty environment. Root ends at the
uid; bubblewrap never runs as root.

A step that fails is told through the error pipe as `stage errno` and the child is gone; the pipe closes by itself at a good exec.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from collections.abc import Callable

from msgspec import Struct

from coworkd.model.names import MIN_UID
from coworkd.system import descriptors, keyring, namespaces, prctl

FD_ARGS, FD_BASE_FILTER, FD_ADMIN_FILTER, FD_STATUS, FD_TTY, FD_SHIM, FD_SHIM_SOURCE = 3, 4, 5, 6, 7, 8, 9
_FD_ERROR = 10
_FIRST_PARKED_FD = 64
_OOM_SCORE_ADJ = b"100"


class ChildPlan(Struct, frozen=True, kw_only=True):
    """Everything the child needs, made before the fork. Descriptors are the launcher's; `fds` maps them to their number."""

    launcher_pid: int
    uid: int
    gid: int
    nofile: int
    nproc: int | None
    mount_namespace: int
    network_namespace: int
    filters: tuple[int, int]
    fds: dict[int, int]
    """Number in the child → descriptor here."""
    error_fd: int
    executable: bytes
    argv: tuple[bytes, ...]


def run(plan: ChildPlan) -> None:
    """Become the sandbox. Never returns."""
    stage, error_fd = "start", plan.error_fd

    def step(name: str, action: Callable[[], object]) -> None:
        nonlocal stage
        stage = name
        action()

    try:
        _refuse_root(plan)
        step("oom_score_adj", _set_oom_score)
        step("rlimits", lambda: _set_limits(plan))
        step("filters", lambda: _reopen_filters(plan))
        step("mount_namespace", lambda: namespaces.setns(plan.mount_namespace, namespaces.CLONE_NEWNS))
        step("network_namespace", lambda: namespaces.setns(plan.network_namespace, namespaces.CLONE_NEWNET))
        step("keyring", keyring.join_new_session_keyring)
        step("groups", lambda: os.setgroups([]))
        step("gid", lambda: os.setresgid(plan.gid, plan.gid, plan.gid))
        step("uid", lambda: os.setresuid(plan.uid, plan.uid, plan.uid))
        step("no_new_privs", prctl.set_no_new_privs)
        step("parent_death", lambda: _follow_parent(plan.launcher_pid))
        step("signals", _reset_signals)
        os.umask(0o022)
        step("descriptors", lambda: _arrange_descriptors(plan))
        error_fd = _FD_ERROR
        step("exec", lambda: os.execve(plan.executable, plan.argv, {}))
    except OSError as error:
        os.write(error_fd, f"{stage} {error.errno}".encode())
    except BaseException as error:  # noqa: BLE001 - a forked child must never go on as a second launcher
        os.write(error_fd, f"{stage} 0 {error!r}".encode())
    os._exit(127)


def _refuse_root(plan: ChildPlan) -> None:
    if plan.uid < MIN_UID or plan.gid < MIN_UID:
        raise PermissionError(1, "a uid or gid below 1001")


def _set_oom_score() -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(fd, _OOM_SCORE_ADJ)
    os.close(fd)


def _set_limits(plan: ChildPlan) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (plan.nofile, plan.nofile))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 * 1024 * 1024, 8 * 1024 * 1024))
    if plan.nproc is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (plan.nproc, plan.nproc))


def _reopen_filters(plan: ChildPlan) -> None:
    # bubblewrap reads from the current offset, so every spawn needs a description of its own.
    for number, fd in zip((FD_BASE_FILTER, FD_ADMIN_FILTER), plan.filters, strict=True):
        plan.fds[number] = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def _follow_parent(launcher_pid: int) -> None:
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != launcher_pid:
        os._exit(127)


def _reset_signals() -> None:
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _arrange_descriptors(plan: ChildPlan) -> None:
    # Park every source above all targets first, so that no target overwrites a source still to be moved.
    wanted = {**plan.fds, _FD_ERROR: plan.error_fd}
    parked = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_PARKED_FD) for number, fd in wanted.items()}
    for number, fd in parked.items():
        os.dup2(fd, number, inheritable=number != _FD_ERROR)
    for number in range(3, _FD_ERROR):
        if number not in parked:
            descriptors.close_range(number, number)
    descriptors.close_range(_FD_ERROR + 1)
