"""What a worker is given before its work begins: a socket, and the rights of its kind. Runs in the child.

Rules
- The program is loaded first, while its files can be seen; it may load nothing later.
- `files` is in its session's view, as its user, without a capability, at home. The others are root in the launcher's view with the
  rights of their kind; `disk`, `update` and `share` have all of root's, for they mount.
- None can gain rights by an exec, be traced, or outlive the launcher.

Sources: capabilities(7), setns(2), prctl(2).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import types

from msgspec import Struct

from coworkd.launcher.errand import ErrandError, Report, Teller
from coworkd.model.launch import WorkerKind
from coworkd.system import capabilities, keyring, namespaces, prctl

_FILE_RIGHTS = (
    capabilities.CAP_CHOWN,
    capabilities.CAP_DAC_OVERRIDE,
    capabilities.CAP_DAC_READ_SEARCH,
    capabilities.CAP_FOWNER,
)
RIGHTS: dict[WorkerKind, tuple[int, ...] | None] = {
    "files": (),
    # overlayfs keeps its marks in trusted.* attributes
    "stage": (*_FILE_RIGHTS, capabilities.CAP_SYS_ADMIN),
    "measure": _FILE_RIGHTS,
    "tool": _FILE_RIGHTS,
    # fanotify marks of whole file systems, and handles made paths again
    "watch": (capabilities.CAP_DAC_READ_SEARCH, capabilities.CAP_SYS_ADMIN),
    "disk": None,
    "update": None,
    "share": None,
}
"""Capabilities by kind; None is all that root has."""
_OOM_SCORE_ADJ = {"files": b"0"}
_OTHER_OOM_SCORE_ADJ = b"-500"


class Inside(Struct, frozen=True, kw_only=True):
    """The session a worker works in."""

    session: str
    uid: int
    gid: int
    mount_namespace: int
    cgroup: str | None


class Worker(Struct, frozen=True, kw_only=True):
    """What is to be started; `socket_fd` is its own end of the conversation."""

    kind: WorkerKind
    inside: Inside | None
    socket_fd: int

    def run(self, teller: Teller) -> None:
        """Report when it is about to work, then work. Raises `ErrandError`, `OSError` before that."""
        serve = _load(self.kind)
        connection = socket.socket(fileno=self.socket_fd)
        with contextlib.suppress(PermissionError):  # where root has no CAP_SYS_RESOURCE (a container)
            _write("/proc/self/oom_score_adj", _OOM_SCORE_ADJ.get(self.kind, _OTHER_OOM_SCORE_ADJ))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        os.umask(0o022)
        os.chdir("/")
        if self.inside is not None:
            _enter(self.inside)
        rights = RIGHTS[self.kind]
        if rights is not None:
            capabilities.drop_bounding_set()
        if self.inside is not None:
            os.setgroups([])
            os.setresgid(self.inside.gid, self.inside.gid, self.inside.gid)
            os.setresuid(self.inside.uid, self.inside.uid, self.inside.uid)
            os.chdir(f"/sessions/{self.inside.session}")
        if rights is not None:
            capabilities.keep_only(rights)
        prctl.set_no_new_privs()
        prctl.set_undumpable()
        teller.die_with_launcher()
        teller.tell(Report())
        serve(connection)


def _load(kind: WorkerKind) -> types.FunctionType:
    name = f"coworkd.workers.{kind}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ErrandError("worker", None, f"there is no worker {kind!r}: {error}") from error
    serve: types.FunctionType = module.serve
    return serve


def _enter(inside: Inside) -> None:
    if inside.cgroup is not None:
        _write(f"{inside.cgroup}/cgroup.procs", b"0")
    namespaces.setns(inside.mount_namespace, namespaces.CLONE_NEWNS)
    keyring.join_new_session_keyring()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
