"""Doctor: what coworkd needs of a machine, checked one by one, and how to mend what is missing.

Each check is a plain function from facts to one `Finding`, so each can be tested with made-up facts; `services.
doctor_probes` gets the facts of the real machine. `examine` runs them all, synchronously: in a worker thread of the
daemon, or without any daemon (`coworkctl doctor --local`).

Rules: a check that cannot be made is told, never left out. `failed` means that commands cannot run here as they should;
`degraded` that they do, with something less. Every finding that is not `ok` has a remedy. Nothing here changes anything.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from msgspec import Struct

from coworkd.model.calls import Finding
from coworkd.model.uids import MAX_UID, MIN_UID
from coworkd.sandbox.bwrap_plan import REQUIRED_OPTIONS
from coworkd.services.doctor_limits import LIMIT_CHECKS
from coworkd.services.doctor_network import NETWORK_CHECKS, NetworkProbes
from coworkd.services.doctor_storage import STORAGE_CHECKS, StorageProbes

PYTHON_FLOOR = (3, 10)
KERNEL_FLOOR = (5, 12)
"""mount_setattr(2) came with 5.12, openat2 with 5.6, close_range with 5.9."""
FREE_DEGRADED_BYTES = 256 * 1024 * 1024
FREE_FAILED_BYTES = 16 * 1024 * 1024
APPARMOR_PROFILE = "coworkd-bwrap"
RELEASED_AT = 1_767_225_600.0
"""2026-01-01: no clock that is right tells an earlier time to this program."""
IMPLAUSIBLE_AT = 4_102_444_800.0
"""2100-01-01."""


class DirectoryFacts(Struct, frozen=True, kw_only=True):
    """A directory that was written to and removed from, and the bytes free to its writer."""

    mode: int
    uid: int
    free_bytes: int


class AuditFacts(Struct, frozen=True, kw_only=True):
    """How the newest file of the audit log ends; `seq` is 0 in an empty log."""

    seq: int
    head: str
    torn_bytes: int
    broken: str | None


class SocketFacts(Struct, frozen=True, kw_only=True):
    """A socket in the file system, and the directory it lies in."""

    mode: int
    uid: int
    parent_mode: int
    parent_uid: int


class Probes(NetworkProbes, StorageProbes, Protocol):
    """The facts, those of the network among them. Each raises `OSError` where the machine refuses."""

    def python_version(self) -> tuple[int, int, int]: ...
    def uid(self) -> int: ...
    def kernel_release(self) -> str: ...
    def bwrap_help(self) -> tuple[str, str]:
        """Version and help text of the bubblewrap that would be used."""

    def try_bwrap(self) -> str:
        """Build the smallest sandbox as an ordinary user; its error text, empty where it worked."""

    def read(self, path: str) -> str:
        """A file of /proc, /sys or /etc as text."""

    def seccomp_binding(self) -> str:
        """The name of the importable binding; empty for none."""

    def launcher(self) -> str:
        """Who answers at the launcher's socket, for people; raises `OSError` where nobody does."""

    def state_directory(self) -> DirectoryFacts: ...
    def audit_end(self) -> AuditFacts: ...
    def try_proc_connector(self) -> None: ...
    def try_mount_api(self) -> None: ...
    def open_fuse(self) -> None: ...
    def now(self) -> float: ...
    def sockets(self) -> dict[str, SocketFacts | None]:
        """The unix sockets that coworkd should serve; None for one that is not there."""


State = Literal["ok", "degraded", "failed"]
Check = Callable[[Probes], Finding]


def examine(probes: Probes) -> tuple[Finding, ...]:
    """Every check, in the order in which a person would mend them."""
    return tuple(_guarded(name, check, probes) for name, check in CHECKS.items())


def _guarded(name: str, check: Check, probes: Probes) -> Finding:
    """A check that the machine does not even let us make is `degraded`: what we do not know does not work for sure."""
    try:
        return check(probes)
    except OSError as error:
        return _finding(
            name,
            "degraded",
            f"could not be checked: {error.strerror or error}",
            "run doctor as root on the guest itself",
        )


def _finding(check: str, state: State, detail: str, remedy: str = "") -> Finding:
    return Finding(check=check, state=state, detail=detail, remedy=remedy)


def check_python(probes: Probes) -> Finding:
    version = ".".join(map(str, probes.python_version()))
    if probes.python_version()[:2] < PYTHON_FLOOR:
        return _finding("python", "failed", f"Python {version} is too old", "run coworkd with Python 3.10 or newer")
    return _finding("python", "ok", f"Python {version}")


def check_root(probes: Probes) -> Finding:
    if probes.uid() != 0:
        return _finding("root", "failed", f"running as uid {probes.uid()}", "run it as root: sudo coworkctl …")
    return _finding("root", "ok", "running as root")


def check_kernel(probes: Probes) -> Finding:
    release = probes.kernel_release()
    if _version(release) < KERNEL_FLOOR:
        floor = ".".join(map(str, KERNEL_FLOOR))
        return _finding("kernel", "failed", f"Linux {release} is too old", f"boot a kernel of {floor} or newer")
    return _finding("kernel", "ok", f"Linux {release}")


def check_bubblewrap(probes: Probes) -> Finding:
    try:
        version, text = probes.bwrap_help()
    except FileNotFoundError:
        return _finding("bubblewrap", "failed", "bwrap is not installed", "apt install bubblewrap")
    missing = [option for option in REQUIRED_OPTIONS if option not in text.split()]
    if missing:
        detail = f"bubblewrap {version} lacks {', '.join(missing)}"
        return _finding("bubblewrap", "failed", detail, "install bubblewrap 0.6.1 or newer")
    if "--disable-userns" not in text.split():
        detail = f"bubblewrap {version} cannot forbid user namespaces inside; the seccomp filter does"
        return _finding("bubblewrap", "ok", detail)
    return _finding("bubblewrap", "ok", f"bubblewrap {version}")


def check_user_namespaces(probes: Probes) -> Finding:
    name = "user-namespaces"
    if _number(probes, "/proc/sys/user/max_user_namespaces", 1) == 0:
        remedy = "sysctl -w user.max_user_namespaces=15000, and keep it in /etc/sysctl.d"
        return _finding(name, "failed", "user.max_user_namespaces is 0: none may be made", remedy)
    if _number(probes, "/proc/sys/kernel/unprivileged_userns_clone", 1) == 0:
        remedy = "sysctl -w kernel.unprivileged_userns_clone=1, and keep it in /etc/sysctl.d"
        return _finding(name, "failed", "kernel.unprivileged_userns_clone is 0: only root may make them", remedy)
    try:
        problem = probes.try_bwrap()
    except FileNotFoundError:
        return _finding(name, "degraded", "not tried: bwrap is not installed", "apt install bubblewrap")
    if not problem:
        return _finding(name, "ok", "bubblewrap builds a sandbox as an ordinary user")
    if _number(probes, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) == 1:
        remedy = (
            f"install systemd/{APPARMOR_PROFILE}.apparmor as /etc/apparmor.d/{APPARMOR_PROFILE}, then"
            f" apparmor_parser --replace /etc/apparmor.d/{APPARMOR_PROFILE}"
        )
        return _finding(name, "failed", f"AppArmor restricts user namespaces: {problem}", remedy)
    remedy = (
        "allow user namespaces for bwrap: look at seccomp and LSM settings of the container or unit coworkd runs in"
    )
    return _finding(name, "failed", f"bubblewrap cannot build a sandbox: {problem}", remedy)


def check_cgroup(probes: Probes) -> Finding:
    root = next(
        (
            line.partition(" - ")[0].split()[4]
            for line in probes.read("/proc/self/mountinfo").splitlines()
            if line.partition(" - ")[2].startswith("cgroup2 ")
        ),
        None,
    )
    if root is None:
        remedy = "boot with systemd.unified_cgroup_hierarchy=1"
        return _finding("cgroup", "degraded", "no cgroup v2: only rlimits hold, a tree is killed by its init", remedy)
    there = probes.read(f"{root}/cgroup.controllers").split()
    missing = [name for name in ("memory", "pids", "cpu") if name not in there]
    if missing:
        detail = f"cgroup v2 at {root} lacks {', '.join(missing)}: limits of these fall back to rlimits, or do not hold"
        return _finding(
            "cgroup", "degraded", detail, "boot with systemd.unified_cgroup_hierarchy=1 (cgroup v1 holds them)"
        )
    return _finding("cgroup", "ok", f"cgroup v2 at {root} with memory, pids and cpu")


def check_seccomp(probes: Probes) -> Finding:
    if "kill_process" not in probes.read("/proc/sys/kernel/seccomp/actions_avail").split():
        remedy = "boot a kernel with CONFIG_SECCOMP_FILTER=y"
        return _finding("seccomp", "failed", "the kernel has no seccomp filters; nothing can start", remedy)
    binding = probes.seccomp_binding()
    if not binding:
        detail = "no libseccomp binding: only filters that were compiled before can be used"
        return _finding(
            "seccomp", "failed", detail, "apt install python3-seccomp, or libseccomp2 and pip install pyseccomp"
        )
    return _finding("seccomp", "ok", f"seccomp filters, compiled with {binding}")


def check_launcher(probes: Probes) -> Finding:
    try:
        return _finding("launcher", "ok", probes.launcher())
    except OSError as error:
        remedy = "systemctl restart coworkd-launcher, then look at journalctl -u coworkd-launcher"
        return _finding("launcher", "failed", f"the launcher does not answer: {error.strerror or error}", remedy)


def check_state_directory(probes: Probes) -> Finding:
    name = "state-directory"
    try:
        facts = probes.state_directory()
    except OSError as error:
        detail = f"cannot be written: {error.strerror or error}"
        return _finding(name, "failed", detail, "mount it writable, or set state_dir in coworkd.toml")
    free = f"{facts.free_bytes // (1024 * 1024)} MiB free"
    if facts.uid != 0 or stat.S_IMODE(facts.mode) & 0o022:
        detail = f"belongs to uid {facts.uid} with mode {stat.S_IMODE(facts.mode):04o}: others may change it"
        return _finding(name, "failed", detail, "chown root: and chmod go-w it, then run coworkctl audit verify")
    if facts.free_bytes < FREE_DEGRADED_BYTES:
        state: State = "failed" if facts.free_bytes < FREE_FAILED_BYTES else "degraded"
        return _finding(name, state, free, "delete sessions that are no longer needed, or grow the disk")
    return _finding(name, "ok", f"writable, {free}")


def check_audit(probes: Probes) -> Finding:
    try:
        facts = probes.audit_end()
    except FileNotFoundError:
        return _finding("audit", "ok", "no audit log yet")
    if facts.broken is not None:
        remedy = "run coworkctl audit verify, keep a copy of the files, and ask who may write there"
        return _finding("audit", "failed", f"the log does not end with a whole record: {facts.broken}", remedy)
    if facts.torn_bytes:
        detail = f"ends with {facts.torn_bytes} bytes of a record that was never finished"
        return _finding("audit", "degraded", detail, "start coworkd: it cuts them off and records it")
    return _finding("audit", "ok", f"ends with record {facts.seq}, {facts.head[:16]}…")


def check_proc_connector(probes: Probes) -> Finding:
    try:
        probes.try_proc_connector()
    except OSError as error:
        detail = f"not usable ({error.strerror or error}): 128+n is told as signal n, inferred"
        return _finding("proc-connector", "degraded", detail, "needs CONFIG_PROC_EVENTS=y and CAP_NET_ADMIN")
    return _finding("proc-connector", "ok", "exact exit statuses are known")


def check_mount_api(probes: Probes) -> Finding:
    try:
        probes.try_mount_api()
    except OSError as error:
        why = "the kernel has no" if error.errno == errno.ENOSYS else "we may not use the"
        remedy = "boot Linux 5.12 or newer" if error.errno == errno.ENOSYS else "run as root with CAP_SYS_ADMIN"
        return _finding("mount-api", "failed", f"{why} new mount calls: {error.strerror or error}", remedy)
    return _finding("mount-api", "ok", "open_tree and its kin work")


def check_fuse(probes: Probes) -> Finding:
    try:
        probes.open_fuse()
    except OSError as error:
        detail = f"/dev/fuse cannot be opened ({error.strerror or error}): no folders that refuse deletes"
        return _finding("fuse", "degraded", detail, "modprobe fuse")
    return _finding("fuse", "ok", "/dev/fuse opens")


def check_subordinate_ids(probes: Probes) -> Finding:
    clashes = [
        f"{path}: {line}"
        for path in ("/etc/subuid", "/etc/subgid")
        for line in _lines(probes, path)
        if _overlaps_sessions(line)
    ]
    if clashes:
        detail = (
            f"ranges of others reach into {MIN_UID} to {MAX_UID}, where sessions get their uids: {'; '.join(clashes)}"
        )
        return _finding("subordinate-ids", "degraded", detail, "move these ranges to 100000 and above")
    return _finding("subordinate-ids", "ok", f"nobody else has uids from {MIN_UID} to {MAX_UID}")


def check_clock(probes: Probes) -> Finding:
    now = probes.now()
    if not RELEASED_AT <= now < IMPLAUSIBLE_AT:
        remedy = "coworkctl call sync_clock from the host, or date -s; TLS fails until then"
        return _finding("clock", "degraded", f"the clock says {now:.0f} s since 1970, which cannot be", remedy)
    return _finding("clock", "ok", "the time is plausible")


def check_sockets(probes: Probes) -> Finding:
    found = probes.sockets()
    absent = [path for path, facts in found.items() if facts is None]
    open_ones = [path for path, facts in found.items() if facts is not None and _others_reach(facts)]
    if open_ones:
        detail = f"others than root can reach or replace {', '.join(open_ones)}"
        return _finding("sockets", "failed", detail, "chmod 0600 the socket, chown root and chmod go-w its directory")
    if absent:
        remedy = "systemctl start coworkd, or coworkd local in the foreground"
        return _finding("sockets", "degraded", f"not there: {', '.join(absent)}", remedy)
    return _finding("sockets", "ok", f"{len(found)} unix sockets, for root only")


CHECKS: dict[str, Check] = {
    "python": check_python,
    "root": check_root,
    "kernel": check_kernel,
    "bubblewrap": check_bubblewrap,
    "user-namespaces": check_user_namespaces,
    "seccomp": check_seccomp,
    "mount-api": check_mount_api,
    "cgroup": check_cgroup,
    "proc-connector": check_proc_connector,
    "fuse": check_fuse,
    "subordinate-ids": check_subordinate_ids,
    "clock": check_clock,
    "state-directory": check_state_directory,
    "audit": check_audit,
    "launcher": check_launcher,
    "sockets": check_sockets,
    **LIMIT_CHECKS,
    **STORAGE_CHECKS,
    **NETWORK_CHECKS,
}


def _others_reach(facts: SocketFacts) -> bool:
    replaceable = facts.parent_mode & 0o022 and not facts.parent_mode & stat.S_ISVTX
    return bool(facts.mode & 0o077 or facts.uid or facts.parent_uid or replaceable)


def _version(release: str) -> tuple[int, ...]:
    numbers = release.partition("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())


def _number(probes: Probes, path: str, absent: int) -> int:
    """A sysctl; `absent` where this kernel does not have it."""
    try:
        return int(probes.read(path))
    except FileNotFoundError:
        return absent


def _lines(probes: Probes, path: str) -> Iterable[str]:
    try:
        return probes.read(path).splitlines()
    except FileNotFoundError:
        return ()


def _overlaps_sessions(line: str) -> bool:
    """Whether a `name:first:count` line of subuid(5) reaches into the uids of sessions."""
    fields = line.split(":")
    if len(fields) != 3 or not (fields[1].isdigit() and fields[2].isdigit()):
        return False
    first, count = int(fields[1]), int(fields[2])
    return first <= MAX_UID and first + count > MIN_UID
