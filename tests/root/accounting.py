"""What a running coworkd, its launcher and everything below them hold, as numbers by name: so that what stays behind is seen.

    books = Books(daemon.child.pid, launcher_pid, cgroup_root(daemon))
    before = books.look_when_steady()
    …
    books.assert_settles(before)

Counted: descriptors by kind (a memfd by its name, a namespace by its kind), threads, memory and mounts of coworkd, of the launcher and of
coworkd-egress; every other process below them, by name, zombies apart, without workers that come and go; cgroups below the launcher's,
numbers in their names apart; mount and network namespaces that any process or descriptor of theirs still holds. Numbers of memory are
in KiB and are never part of `grown`: a program may grow to its working size.

Rules: only /proc and the cgroup's directory are read, as root; a process that goes meanwhile is passed over.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from coworkd.client.sync import Client
from coworkd.system import cgroup
from tests.root.conftest import Daemon
from tests.root.live import children_of, wait_until, when_steady

SETTLE_S = 45.0
"""Worker threads of trio's live on for 10 s."""
_STEADY_S = 0.5
_WORKERS = ("processes: coworkd-measure", "processes: coworkd-watch", "processes: coworkd-files")
"""They come when they are needed and go when they are not; each is known to coworkd by one socket."""
IDLE_THREADS = ("coworkd: threads",)
"""What a look right after a command passes over."""
_NUMBER = re.compile(r"\d+")
_AUDIT_FILE = re.compile(r"audit-\d+\.jsonl")
"""The log's newest file, whose name is the number of its first record."""
_NAMESPACE = re.compile(r"(mnt|net):\[(\d+)\]")
_GONE = (FileNotFoundError, ProcessLookupError)


def cgroup_root(daemon: Daemon) -> Path | None:
    """The launcher's own cgroup; None where there is no cgroup v2."""
    own = cgroup.choose_own(f"coworkd-{os.stat(daemon.state / '.coworkd' / 'run').st_ino:x}")
    return None if own is None else Path(own)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Books:
    """The accounts of one coworkd and one launcher; make new ones when either was replaced."""

    def __init__(self, coworkd: int, launcher: int, cgroups: Path | None = None, *, egress: int = 0) -> None:
        """`egress` is coworkd-egress, which a coworkd that was killed leaves to be nobody's child."""
        self._programs = {"coworkd": coworkd, "launcher": launcher}
        if egress:
            self._programs["egress"] = egress
        self._guard = parent_of(launcher)
        self._cgroups = cgroups

    def look(self) -> dict[str, int]:
        """All counts, now."""
        held: Counter[str] = Counter()
        namespaces: set[str] = set()
        for name, pid in self._programs.items():
            held.update({f"{name}: {kind}": count for kind, count in _descriptors(pid).items()})
            held[f"{name}: threads"] = len(os.listdir(f"/proc/{pid}/task"))
            held[f"{name}: mounts"] = len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        for pid in self.processes():
            namespaces |= _namespaces(pid)
            if pid not in self._programs.values():
                held[_kind_of(pid)] += 1
        for name in _WORKERS:
            held["coworkd: socket"] -= held.pop(name, 0)
        for kind in ("mnt", "net"):
            held[f"namespaces: {kind}"] = sum(1 for each in namespaces if each.startswith(kind))
        if self._cgroups is not None:
            for where, names, _ in os.walk(self._cgroups):
                for name in names:
                    held[_kind_of_cgroup(os.path.join(where, name), self._cgroups)] += 1
        return dict(held)

    def look_when_steady(self) -> dict[str, int]:
        """As `look`, once nothing changes any more: what is built ahead for the next command stands."""
        return when_steady(self.look, still_s=_STEADY_S, within_s=SETTLE_S)

    def memory_kib(self) -> dict[str, int]:
        """What each program keeps in memory, files mapped included; the others below them together."""
        kept: Counter[str] = Counter()
        names = {pid: name for name, pid in self._programs.items()}
        for pid in self.processes():
            if _kind_of(pid) not in _WORKERS:
                kept[names.get(pid, "others")] += _resident_kib(pid)
        return dict(kept)

    def processes(self) -> list[int]:
        """The two programs, the launcher's guard, and all that is below them."""
        found: dict[int, None] = {}
        waiting = [self._guard, *self._programs.values()]
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found[pid] = None
                with contextlib.suppress(*_GONE):
                    waiting += children_of(pid)
        return list(found)

    def assert_settles(
        self, before: Mapping[str, int], timeout_s: float = SETTLE_S, *, passing_over: Collection[str] = ()
    ) -> None:
        """Nothing is more than `before`, within that time; what is named is not looked at."""
        more: dict[str, tuple[int, int]] = {}

        def settled() -> bool:
            more.clear()
            more.update(grown(before, self.look()))
            for name in passing_over:
                more.pop(name, None)
            return not more

        deadline = time.monotonic() + timeout_s
        while not settled():
            assert time.monotonic() < deadline, f"held before and after: {more}"
            time.sleep(0.1)


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """What there is more of: its name, with both counts."""
    return {name: (before.get(name, 0), count) for name, count in after.items() if count > before.get(name, 0)}


@contextlib.contextmanager
def leaving_nothing(
    daemon: Daemon, launcher: int, timeout_s: float = SETTLE_S, *, passing_over: Collection[str] = ()
) -> Iterator[Books]:
    """At the end of the block nothing may be there that was not there before, within that time."""
    books = Books(daemon.child.pid, launcher, cgroup_root(daemon))
    before = books.look_when_steady()
    yield books
    books.assert_settles(before, timeout_s, passing_over=passing_over)


@contextlib.contextmanager
def all_well_again(daemon: Daemon, client: Client, session: str) -> Iterator[None]:
    """Behind the block the next command of the session runs, and nothing is left of those that could not."""
    for tty in (None, (24, 80)):
        with client.start(session, ["true"], tty=tty) as process:
            process.wait(60)
    with leaving_nothing(daemon, client.info().launcher_pid, passing_over=IDLE_THREADS):
        yield
        assert client.run(session, ["echo", "again"]).stdout == b"again\n"
        assert client.audit_verify().ok


def wait_gone(pids: list[int], what: str) -> None:
    """Each of these processes has ended and is reaped."""
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what)


def _descriptors(pid: int) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(*_GONE):
            kind = os.readlink(f"/proc/{pid}/fd/{fd}").split(":[")[0]
            kinds[_AUDIT_FILE.sub("audit-*.jsonl", kind)] += 1
    return kinds


def _namespaces(pid: int) -> set[str]:
    """Of the process itself, and of what it holds open."""
    found: set[str] = set()
    for directory in ("ns", "fd"):
        with contextlib.suppress(*_GONE):
            for name in os.listdir(f"/proc/{pid}/{directory}"):
                with contextlib.suppress(*_GONE):
                    link = os.readlink(f"/proc/{pid}/{directory}/{name}")
                    found.update(["".join(match.groups()) for match in [_NAMESPACE.fullmatch(link)] if match])
    return found


def _kind_of(pid: int) -> str:
    try:
        head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except _GONE:
        return "processes: going"
    return "processes: zombies" if rest.split()[0] == "Z" else f"processes: {head.partition('(')[2]}"


def _kind_of_cgroup(path: str, root: Path) -> str:
    """Its place, without numbers. One that a process is in is told apart: which of them wait for a command differs all the time."""
    kind = _NUMBER.sub("N", os.path.relpath(path, root))
    with contextlib.suppress(OSError):
        if os.path.basename(path).startswith("p-") and Path(path, "cgroup.procs").read_text():
            return "cgroups: of commands and what waits for one"
    return f"cgroups: {kind}"


def _resident_kib(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    except _GONE:
        return 0
