"""The words between coworkd and its launcher: one SOCK_SEQPACKET message each, MessagePack of these tagged structs.

Rules
- A request carries `id`, 0 where it is told and not asked; each other one the launcher answers with exactly one `Done`, `TakenOver`,
  `Opened`, `SocketMade`, `FolderMounted`, `FolderUnmounted`,
  `WorkerStarted`, `WarmCounts`, `Measured`, `Frozen`, `PressureOpened`, `Spawned` or `Refused` of the same id.
- Notices (`Started`, `StartError`, `Exited`) come unasked, in the order things happened, and are kept by the launcher until `Forget`
  or until the supervisor that was away has taken them with `Adopt`.
- Descriptors travel as SCM_RIGHTS with the message that names them; `fds` lists their meaning in order. Whoever receives a
  descriptor owns it and closes it.
- A message over 64 KiB travels in a memfd: the packet is then one zero byte and the memfd is the first descriptor.
- The launcher decides nothing and yet trusts nothing: a uid below 1001, a spawn without both filters, a destination
  that is not absolute and normal are refused here as well.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.folder import DeleteRule, MountedAs
from coworkd.model.launch_tree import TreeBind as TreeBind
from coworkd.model.launch_tree import TreeCopy as TreeCopy
from coworkd.model.launch_tree import TreeDevice as TreeDevice
from coworkd.model.launch_tree import TreeDir as TreeDir
from coworkd.model.launch_tree import TreeEntry as TreeEntry
from coworkd.model.launch_tree import TreeFile as TreeFile
from coworkd.model.launch_tree import TreeFileBind as TreeFileBind
from coworkd.model.launch_tree import TreeLink as TreeLink
from coworkd.model.launch_tree import TreeProc as TreeProc
from coworkd.model.launch_tree import TreeTmpfs as TreeTmpfs
from coworkd.model.limits import CgroupLimits, GroupUsage, Oom, PressureKind, Rlimits
from coworkd.model.policy import FolderMode
from coworkd.model.process import Rusage, TtySize

INLINE_LIMIT_BYTES = 64 * 1024
MESSAGE_LIMIT_BYTES = 8 * 1024 * 1024
HTTP_PROXY_PORT, SOCKS_PROXY_PORT = 3128, 1080
"""Where the proxies listen on a session's own loopback."""
NOTE_LIMIT_BYTES = 4096
GO = b"gogo"
"""Opens a gate: one byte for each sandbox that may come to wait there, and some that stay and say that it was opened."""
FILTER_LIMIT = 256
"""How many seccomp programs the launcher keeps: the last ones put. The supervisor counts in the same way."""

# -- requests -----------------------------------------------------------------------------------------------------


class OpenSession(Struct, frozen=True, kw_only=True, tag="open_session"):
    """Build the mount namespace, network namespace and cgroup of a session; answered at once if it is open already.

    Its commands stand still or go on as `paused` says, open already or not.
    """

    id: int
    session: str
    uid: int
    gid: int
    tree: tuple[TreeEntry, ...]
    limits: CgroupLimits
    paused: bool = False


class MakeSocket(Struct, frozen=True, kw_only=True, tag="make_socket"):
    """A stream socket that lives in the session's network namespace, wherever it is used; answered by `SocketMade`."""

    id: int
    session: str
    ipv6: bool = False


class MountFolder(Struct, frozen=True, kw_only=True, tag="mount_folder"):
    """Mount one folder in an open session, below its `mnt`; running sandboxes see it at once. Answered by `FolderMounted` or `Refused`.

    The source is looked up below `root` without following any symbolic link and without leaving it (openat2(2)), and probed, in a child
    that is killed after `deadline_s`. One that is mounted already in the same way is answered as it stands; another way is `Refused`.
    """

    id: int
    session: str
    name: str
    root: bytes
    source: bytes
    """Relative to `root`; `.` is the root itself."""
    mode: FolderMode
    deletes: DeleteRule = "deny"
    """Of a guarded folder: what becomes of a delete of what the session has not made itself."""
    journal: bytes = b""
    """Of a guarded folder: the guest's file that remembers what the session has made in it."""
    stage: bytes = b""
    """Of a staged folder: the guest's directory with `upper` and `work`."""
    apart_from: tuple[bytes, ...] = ()
    """Directories of coworkd's own: a source that lies in one, or holds one, is refused, whatever path leads to it."""
    deadline_s: float = 5.0


class UnmountFolder(Struct, frozen=True, kw_only=True, tag="unmount_folder"):
    """Take a folder away; lazily where it is busy. Answered by `FolderUnmounted`; one that is not there is `FolderUnmounted` too."""

    id: int
    session: str
    name: str
    lazy: bool = True
    """With false, one that is in use stays as it is, and is answered as `busy`."""


WorkerKind = Literal["files", "stage", "measure", "watch", "disk", "tool", "update", "share"]


class StartWorker(Struct, frozen=True, kw_only=True, tag="start_worker"):
    """Start one of the programs of `coworkd.workers`, which talks to the supervisor over a socket of its own, and ends with it.

    `files` works in the view of `session`, as its user; `stage`, `measure` and `tool` as root with the rights over files alone,
    `watch` with those of fanotify(7), `disk` and `update` with all. Answered by `WorkerStarted`.
    """

    id: int
    kind: WorkerKind
    session: str | None = None


class KillWorker(Struct, frozen=True, kw_only=True, tag="kill_worker"):
    """End a worker now; one that is gone is `Done`."""

    id: int
    worker: int


class OwnMount(Struct, frozen=True, kw_only=True, tag="own_mount"):
    """From now on the launcher unmounts `path` when it ends; with `owned` false it does not any more."""

    id: int
    path: bytes
    owned: bool


class CloseSession(Struct, frozen=True, kw_only=True, tag="close_session"):
    """Kill what runs in it, let go of its namespaces, remove its cgroup. Unknown sessions are `Done`."""

    id: int
    session: str


class SetLimits(Struct, frozen=True, kw_only=True, tag="set_limits"):
    """Give an open session, or one command that runs in it, other limits; fields that are None stay as they are.

    Answered by `Measured` once the kernel has taken them, which may want some time where a limit is below what is used: memory is taken
    back, and what cannot be is killed for.
    """

    id: int
    session: str
    process: str | None
    limits: CgroupLimits


class Freeze(Struct, frozen=True, kw_only=True, tag="freeze"):
    """Stop or continue every command of an open session, those that wait included; who serves its folders and files goes on.

    Answered by `Frozen`, at once: what sleeps in the kernel stops when that lets go of it. Asking again tells how far it is.
    """

    id: int
    session: str
    frozen: bool


class Measure(Struct, frozen=True, kw_only=True, tag="measure"):
    """What an open session takes, or one command in it, or with neither all sessions; answered by `Measured`."""

    id: int
    session: str | None = None
    process: str | None = None


class OpenPressure(Struct, frozen=True, kw_only=True, tag="open_pressure"):
    """The kernel's pressure files (PSI) of an open session, for a trigger to be written to; answered by `PressureOpened`."""

    id: int
    session: str


class PutFilter(Struct, frozen=True, kw_only=True, tag="put_filter"):
    """Keep a seccomp program under its SHA-256; refused where the hash does not match."""

    id: int
    sha256: str
    bpf: bytes


class Spawn(Struct, frozen=True, kw_only=True, tag="spawn"):
    """Start one command. Answered by `Spawned` once the child exists, then `Started` or `StartError`, then `Exited`.

    The sandbox is built at once, or one that waits is taken; the command's own exec waits at its gate, and fails with its
    supervisor. `bwrap_args` goes into `--args`, to which the launcher adds filters, status descriptors and what is the command's own.
    """

    id: int
    process: str
    session: str
    uid: int
    gid: int
    argv: tuple[bytes, ...]
    bwrap_args: tuple[bytes, ...]
    filters: tuple[str, str]
    """SHA-256 of the base and of the admin's program, in the order of installing."""
    shim: tuple[bytes, ...] = ()
    """What executes the shim inside, without the shim's own path. Without it there is no terminal, and nothing waits for a command."""
    cwd: bytes = b"/"
    """Inside the sandbox; a relative command is looked up there."""
    environment: tuple[bytes, ...] = ()
    """`NAME=value`, in order. The command has nothing else but PWD, which is `cwd`."""
    stdin: bool
    tty: TtySize | None = None
    warm: int = 0
    """How many sandboxes may wait for the commands that come after this one."""
    rlimits: Rlimits
    limits: CgroupLimits = CgroupLimits()
    """Those of its own: where it has none, its session's hold."""
    one_shot: bool = False
    """Nobody waits for its `Started`: of a command that is over at once that is told with its end."""
    note: bytes = b""
    """What the supervisor wants to know of it after a restart, in its own words; kept and given back by `Adopted`, never read."""


class CountWarm(Struct, frozen=True, kw_only=True, tag="count_warm"):
    """How it stands with the sandboxes that wait for commands; answered by `WarmCounts`."""

    id: int


class Annotate(Struct, frozen=True, kw_only=True, tag="annotate"):
    """Another note in the place of the one that the process has. Answered by `Done`; refused where it is over `NOTE_LIMIT_BYTES`."""

    id: int
    process: str
    note: bytes


class Abandon(Struct, frozen=True, kw_only=True, tag="abandon"):
    """The command may not run: end the sandbox that waits at its gate, and forget it. No notice follows."""

    id: int
    process: str


class Signal(Struct, frozen=True, kw_only=True, tag="signal"):
    """kill(-pgid) of the command's own group, only while the leader's pidfd says it lives."""

    id: int
    process: str
    signal: int


class Kill(Struct, frozen=True, kw_only=True, tag="kill"):
    """End the whole tree now: cgroup.kill where there is one, and SIGKILL to the sandbox's init. Works on paused trees."""

    id: int
    process: str


class Forget(Struct, frozen=True, kw_only=True, tag="forget"):
    """The supervisor has everything it needs of an exited process; its descriptors and record may go."""

    id: int
    process: str


class Release(Struct, frozen=True, kw_only=True, tag="release"):
    """Close the launcher's own copy of a descriptor of `Spawned`: a closed stdin is an end of file only when every copy is closed."""

    id: int
    process: str
    name: str


class Keep(Struct, frozen=True, kw_only=True, tag="keep"):
    """Keep the descriptor that came along under `name` (a terminal's master), so that the next supervisor gets it back."""

    id: int
    process: str
    name: str


class Adopt(Struct, frozen=True, kw_only=True, tag="adopt"):
    """First request of every supervisor: take over. Answered by one `Adopted` per kept process, then `TakenOver`."""

    id: int
    version: str


class Ping(Struct, frozen=True, kw_only=True, tag="ping"):
    """Answered by `Done`."""

    id: int


class Quit(Struct, frozen=True, kw_only=True, tag="quit"):
    """Kill every sandbox, undo every namespace and cgroup, answer `Done`, exit 0."""

    id: int


Request = (
    OpenSession
    | CloseSession
    | MakeSocket
    | MountFolder
    | UnmountFolder
    | StartWorker
    | KillWorker
    | OwnMount
    | SetLimits
    | Freeze
    | Measure
    | OpenPressure
    | CountWarm
    | PutFilter
    | Spawn
    | Annotate
    | Abandon
    | Signal
    | Kill
    | Forget
    | Release
    | Keep
    | Adopt
    | Ping
    | Quit
)

# -- answers and notices ------------------------------------------------------------------------------------------


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    """It was done. `degraded` names what the kernel did not allow."""

    id: int
    degraded: tuple[str, ...] = ()


class TakenOver(Struct, frozen=True, kw_only=True, tag="taken_over"):
    """What the new supervisor has: every kept process was told before this. `degraded` as of `Done`."""

    id: int
    supervisors_before: int
    sessions: tuple[str, ...]
    """Those that are open."""
    degraded: tuple[str, ...] = ()


class Opened(Struct, frozen=True, kw_only=True, tag="opened"):
    """The session's namespaces are there. `missing` names optional tree entries left out, `degraded` what the kernel did not allow.

    The descriptors that come along are copies of its listening sockets, all alike: the proxies' two ports on its loopback
    (3128, 1080) and two unix sockets in its /tmp. The launcher keeps its own, so they outlive whoever serves them.
    """

    id: int
    missing: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """Names of those that stand in it, or are about to: of one that was open already."""


class SocketMade(Struct, frozen=True, kw_only=True, tag="socket_made"):
    """One descriptor came along: a new socket, neither bound nor connected."""

    id: int


class FolderMounted(Struct, frozen=True, kw_only=True, tag="folder_mounted"):
    """The folder is there. Of a guarded one a descriptor comes along: a copy of the socket on which its file system talks (`model.folder`).

    `degraded` names what is not as asked. The launcher keeps its own copy, so what the file system says waits for the next supervisor.
    """

    id: int
    mounted_as: MountedAs
    degraded: tuple[str, ...] = ()


class FolderUnmounted(Struct, frozen=True, kw_only=True, tag="folder_unmounted"):
    """It is gone from the session's view. `busy`: it was in use and goes when its last user does."""

    id: int
    busy: bool = False
    leftovers: tuple[str, ...] = ()
    """What is left, in words."""


class WorkerStarted(Struct, frozen=True, kw_only=True, tag="worker_started"):
    """One descriptor came along: the worker's SEQPACKET socket. Its end of file is the worker's end, and ours ends the worker."""

    id: int
    worker: int
    pid: int


class WarmCounts(Struct, frozen=True, kw_only=True, tag="warm_counts"):
    """How many sandboxes wait now, and what became of the others since the launcher began."""

    id: int
    waiting: int
    taken: int
    cold_instead: int
    """Commands of sessions that may have some, for which none was there or none fitted."""
    died: int
    """While they waited or were built."""
    dropped: int
    """Because something changed, memory got short, or nobody came."""


class Measured(Struct, frozen=True, kw_only=True, tag="measured"):
    """What the kernel counts now, and what it holds it to: the limits that it says it has, its own `max` being None."""

    id: int
    usage: GroupUsage
    limits: CgroupLimits = CgroupLimits()


class Frozen(Struct, frozen=True, kw_only=True, tag="frozen"):
    """Whether nothing of the session's commands runs any more; with `frozen` false it does."""

    id: int
    frozen: bool


class PressureOpened(Struct, frozen=True, kw_only=True, tag="pressure_opened"):
    """One descriptor came along for each of `kinds`, in order; none where the kernel tells of no pressure."""

    id: int
    kinds: tuple[PressureKind, ...]


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """It was not done; nothing is left of the attempt."""

    id: int
    stage: str
    errno: int | None
    message: str


class Spawned(Struct, frozen=True, kw_only=True, tag="spawned"):
    """The child exists and becomes bubblewrap. `fds` names the descriptors that came along, in order.

    Meanings: `stdout`, `stderr` (pipe read ends), `stdout_spool`, `stderr_spool` (memfds whose file offset is the
    stream offset; the launcher holds the same descriptions), `stdin` (pipe write end) and `stdin_tally` (an empty memfd
    that counts what went into it), `tty` (socket over which the shim
    sends the pty master), `tty_spool`; and of no `Adopted`: `gate` (pipe write end; the exec waits for `GO` in it).
    """

    id: int
    process: str
    monitor_pid: int
    fds: tuple[str, ...]
    at: float


class Started(Struct, frozen=True, kw_only=True, tag="started"):
    """The command's own execve(2) succeeded."""

    process: str
    init_pid: int
    payload_pid: int
    at: float
    monitor_pid: int
    """Its bubblewrap: another than `Spawned` has named where the command was moved."""


class StartError(Struct, frozen=True, kw_only=True, tag="start_error"):
    """The command never ran. No `Exited` follows."""

    process: str
    stage: str
    errno: int | None
    message: str


class Exited(Struct, frozen=True, kw_only=True, tag="exited"):
    """The sandbox is gone: its init was reaped. `code`/`signal` as `Exit`; `oom_kills` is cgroup v2's count, `oom` whose limit that was."""

    process: str
    code: int | None
    signal: int | None
    inferred: bool
    killed: bool
    oom_kills: int
    oom: Oom | None = None
    pids_refused: int = 0
    """How often it could have no further process, where its cgroup counted that."""
    rusage: Rusage
    at: float
    started: Started | None = None
    """How it began, where that was not told before."""


class Adopted(Struct, frozen=True, kw_only=True, tag="adopted"):
    """One kept process, with the descriptors of `Spawned` and whatever notices it had: the seam for re-attach."""

    id: int
    process: str
    session: str
    argv: tuple[bytes, ...]
    spawned: Spawned
    started: Started | None
    start_error: StartError | None
    exited: Exited | None
    note: bytes = b""
    let_in: bool = False
    """Whether its gate was opened: it may have run, whatever is known of its exec."""


Answer = (
    Done
    | TakenOver
    | Opened
    | SocketMade
    | FolderMounted
    | FolderUnmounted
    | WorkerStarted
    | WarmCounts
    | Measured
    | Frozen
    | PressureOpened
    | Refused
    | Spawned
    | Adopted
)
Notice = Started | StartError | Exited
Reply = Answer | Notice
