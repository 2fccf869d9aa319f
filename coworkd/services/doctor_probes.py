"""The facts of the real machine for `services.doctor`.

Each probe asks once and leaves nothing behind: files it makes have no name, programs it runs have a deadline and an
ordinary user. Blocking, so for worker threads and command lines. It judges nothing.

Sources: open(2) O_TMPFILE, unix(7), proc_sys_kernel(5).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from coworkd.auditlog.chain import read_tail
from coworkd.auditlog.rotation import log_files
from coworkd.services.doctor import AuditFacts, DirectoryFacts, SocketFacts
from coworkd.services.doctor_network_probes import NetworkSources, SystemNetworkProbes
from coworkd.services.doctor_storage import DISK_TOOLS, StorageFacts
from coworkd.system import disk_tools, mounts
from coworkd.system.proc_connector import ProcConnector

PROGRAM_DEADLINE_S = 5.0
NOBODY = 65534
_BINDINGS = ("seccomp", "pyseccomp")
_SMALLEST_SANDBOX = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--die-with-parent"),
    *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"),
)


class SystemProbes(SystemNetworkProbes):
    """Implements `doctor.Probes`.

    A daemon gives `launcher` (says who answers, or raises `OSError`) and `audit` (its log is being written, so the file's
    end may be in flight); without them the socket and the files are looked at. `launcher_socket` None: none is expected.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        audit_dir: Path,
        launcher_socket: Path | None,
        sockets: Sequence[Path],
        network: NetworkSources,
        launcher: Callable[[], str] | None = None,
        audit: Callable[[], AuditFacts] | None = None,
        storage: Callable[[], StorageFacts] | None = None,
        bwrap: str = "bwrap",
    ) -> None:
        super().__init__(network)
        self._state_dir = state_dir
        self._audit_dir = audit_dir
        self._launcher_socket = launcher_socket
        self._sockets = sockets
        self._launcher = launcher
        self._audit = audit
        self._storage = storage
        self._bwrap = bwrap

    def python_version(self) -> tuple[int, int, int]:
        return sys.version_info[:3]

    def uid(self) -> int:
        return os.geteuid()

    def storage(self) -> StorageFacts | None:
        return self._storage() if self._storage else None

    def missing_tools(self) -> tuple[str, ...]:
        path = ":".join(disk_tools.PATH)
        return tuple(name for name in DISK_TOOLS if shutil.which(name, path=path) is None)

    def kernel_release(self) -> str:
        return os.uname().release

    def bwrap_help(self) -> tuple[str, str]:
        version = self._run(self._bwrap, "--version").stdout.strip()
        return version.removeprefix("bubblewrap "), self._run(self._bwrap, "--help").stdout

    def try_bwrap(self) -> str:
        nobody = NOBODY if os.geteuid() == 0 else None
        done = self._run(self._bwrap, *_SMALLEST_SANDBOX, uid=nobody)
        if done.returncode == 0:
            return ""
        return done.stderr.strip() or f"bwrap ended with {done.returncode}"

    def read(self, path: str) -> str:
        return Path(path).read_text(errors="replace")

    def seccomp_binding(self) -> str:
        return next((name for name in _BINDINGS if importlib.util.find_spec(name) is not None), "")

    def launcher(self) -> str:
        if self._launcher is not None:
            return self._launcher()
        if self._launcher_socket is None:
            return "none is expected: a local coworkd starts its own"
        if not stat.S_ISSOCK(os.stat(self._launcher_socket).st_mode):
            raise OSError(f"{self._launcher_socket} is not a socket")
        return f"its socket {self._launcher_socket} is there"

    def state_directory(self) -> DirectoryFacts:
        fd = os.open(self._state_dir, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"\0")
        finally:
            os.close(fd)
        found, space = os.stat(self._state_dir), os.statvfs(self._state_dir)
        return DirectoryFacts(mode=found.st_mode, uid=found.st_uid, free_bytes=space.f_bavail * space.f_frsize)

    def audit_end(self) -> AuditFacts:
        if self._audit is not None:
            return self._audit()
        names = log_files(os.listdir(self._audit_dir))
        if not names:
            raise FileNotFoundError(self._audit_dir)
        end = read_tail((self._audit_dir / names[-1]).read_bytes())
        seq, head = (end.head.seq, end.head.hash) if end.head else (0, "")
        return AuditFacts(seq=seq, head=head, torn_bytes=end.torn_bytes, broken=end.broken)

    def try_proc_connector(self) -> None:
        ProcConnector().close()

    def try_mount_api(self) -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(mounts.open_tree(root, recursive=False))
        finally:
            os.close(root)

    def open_fuse(self) -> None:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))

    def now(self) -> float:
        return time.time()

    def sockets(self) -> dict[str, SocketFacts | None]:
        return {str(path): _socket_facts(path) for path in self._sockets}

    def _run(self, program: str, *arguments: str, uid: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in English with nothing of our environment. Raises `FileNotFoundError`, `TimeoutError`."""
        path = shutil.which(program)
        if path is None:
            raise FileNotFoundError(f"{program} is not installed")
        try:
            return subprocess.run(
                (path, *arguments),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                cwd="/",
                user=uid,
                group=uid,
                extra_groups=None if uid is None else (),
                timeout=PROGRAM_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{program} did not end within {PROGRAM_DEADLINE_S:.0f} s") from error


def _socket_facts(path: Path) -> SocketFacts | None:
    try:
        found, parent = os.lstat(path), os.stat(path.parent)
    except FileNotFoundError:
        return None
    return SocketFacts(
        mode=stat.S_IMODE(found.st_mode), uid=found.st_uid, parent_mode=parent.st_mode, parent_uid=parent.st_uid
    )
