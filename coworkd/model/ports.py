"""What a service needs of another, as Protocols: rooms on one floor do not import each other.

`app` builds the real ones and hands them to constructors; tests hand in verified fakes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

from coworkd.model.calls import AuditRecords, EgressPresets
from coworkd.model.egress import Allowance, SessionEgress
from coworkd.model.errors import CoworkError
from coworkd.model.event import Event
from coworkd.model.folder import MountedAs
from coworkd.model.launch import Adopted, MountFolder, Notice, OpenSession, Spawn, Spawned, WorkerKind
from coworkd.model.limits import CgroupLimits, GroupUsage, PressureKind
from coworkd.model.policy import EffectivePolicy, LimitsRequest
from coworkd.model.process import ExitRecord
from coworkd.model.session import FailedFolder, FolderGrant, SessionRecord, SessionView
from coworkd.model.stream import StreamEnd, StreamEnding


class AuditPort(Protocol):
    """The audit log. Both verbs return when the record is durable (fdatasync); they raise `DiskFailed` and then the effect
    must not happen.
    """

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None: ...


class Recording(Protocol):
    """A record on its way to the disk."""

    async def durable(self) -> None:
        """Return once it is there, cancelled or not; raises as `AuditPort.record`. Whoever has one waits for it."""


class EarlyAudit(AuditPort, Protocol):
    """The audit log of one who has something to do while the disk works."""

    def record_nowait(
        self, kind: str, fields: Mapping[str, Any], /, *, then: Callable[[], None] | None = None
    ) -> Recording:
        """`record`, which is waited for later: no effect before that, but for `then`. That is called from another thread once the record
        is durable, before who waits for it goes on, and must not block.
        """


class AuditReader(AuditPort, Protocol):
    """The audit log of one who writes many records at once, and looks into it."""

    async def record_all(self, records: Sequence[tuple[str, Mapping[str, Any]]], /) -> None: ...

    async def find(
        self, *, kinds: Sequence[str] = (), session: str | None = None, refused_only: bool = False, limit: int
    ) -> AuditRecords:
        """The newest records that fit, oldest first; of all kinds where none is named. Raises `DiskFailed`."""


class EventPort(Protocol):
    """The event ring. Never blocks, never fails."""

    def publish(self, name: str, params: Mapping[str, Any], /) -> Event: ...


class Frames(Protocol):
    """A source of stream data a link's writer pulls from, in turns.

    `next_frame` returns the encoded notification with at most `limit_bytes` of data, or None if there is nothing now: it is asked again
    once its owner has called `LinkPort.wake`, as it does whenever there is something. It must not block. Encoded frames may be lists of
    buffers.
    """

    def next_frame(self, limit_bytes: int, /) -> list[bytes | memoryview] | None: ...

    def detached(self) -> None:
        """The link is gone or has detached; called exactly once."""


class LinkPort(Protocol):
    """One connection from a host, as services see it."""

    @property
    def name(self) -> str: ...

    def notify(self, method: str, params: Mapping[str, Any], /) -> None:
        """Queue a control notification (an exit); it overtakes stream data. Bounded: past its bound the link is closed."""

    def attach(self, source: Frames, /) -> None: ...

    def detach(self, source: Frames, /) -> None: ...

    def wake(self, source: Frames, /) -> None:
        """`source` may have something again; one that is not attached is passed over."""

    def on_close(self, call: Callable[[], None], /) -> None:
        """Call once, synchronously, when the link ends."""

    def finish(self, error: CoworkError, /) -> None:
        """End the link soon; the peer is told why, where it still reads."""


class StreamFlow(Protocol):
    """A stream that is open."""

    def lose(self, error: CoworkError, /) -> None:
        """It cannot go on: its end is aborted, and the host is told `error` where it still hears. Idempotent."""


class StreamPlace(Protocol):
    """Room for one stream of a link: `open` it, or leave the `with` to give the room back."""

    name: str

    def open(
        self, end: StreamEnd, *, window: int | None, ended: Callable[[StreamEnding], Awaitable[None]]
    ) -> StreamFlow:
        """The stream, attached to its link: nothing may be awaited between this and the answer that names it. It owns `end` from here on,
        also where it raises `Unavailable`; `ended` is called once, when the stream is no more.
        """

    def __enter__(self) -> StreamPlace: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class StreamsPort(Protocol):
    """Streams of links, for whoever has something to lead them to."""

    def reserve(self, link: LinkPort, /, *, window: int | None = None) -> StreamPlace:
        """A place for one more stream. Raises `LimitExceeded`, `InvalidParams` for a window that cannot be meant."""


class CommandGate(Protocol):
    """Before a command's exec."""

    def open(self) -> None:
        """Let the exec happen, from any thread, once; what comes of it is told as a notice. Nobody may wait there any more."""

    def close(self) -> None:
        """Let go of it: one that was not opened stays shut. Idempotent."""


class SpawnedFds(Protocol):
    """A `Spawned` or `Adopted` with the descriptors that came with it; whoever `take`s one owns it, `close` closes the rest."""

    @property
    def spawned(self) -> Spawned: ...

    def take(self, name: str, /) -> int | None: ...

    def take_gate(self) -> CommandGate:
        """Of a `Spawned`: the gate, the caller's from now on."""

    def close(self) -> None: ...


class OpenedSession(NamedTuple):
    """What `LauncherPort.open_session` gives; the listeners are the caller's to close."""

    missing: tuple[str, ...]
    """Optional tree entries that were left out."""
    degraded: tuple[str, ...]
    """What is not as asked."""
    listeners: tuple[int, ...]
    """Listening sockets inside the session, for the proxies."""
    folders: tuple[str, ...] = ()
    """Names of those that an earlier coworkd has left in it, mounted or about to be."""


class MountedFolder(NamedTuple):
    """What `LauncherPort.mount_folder` gives; the socket is the caller's to close."""

    mounted_as: MountedAs
    degraded: tuple[str, ...]
    socket: int | None
    """Of a guarded folder: where its file system talks (`model.folder`)."""


class WorkerHandle(NamedTuple):
    """A worker that was started; closing the socket ends it, and the caller closes it."""

    worker: int
    pid: int
    socket: int


class UnmountedFolder(NamedTuple):
    busy: bool
    leftovers: tuple[str, ...]


class FolderLauncherPort(Protocol):
    """The launcher, for those who mount folders and need workers. Refusals raise `MountFailed` with the errno; a launcher that is gone
    raises `Unavailable`, and everything it had mounted is gone with it.
    """

    @property
    def generation(self) -> int:
        """See `LauncherPort`."""

    async def mount_folder(self, request: MountFolder, /) -> MountedFolder: ...

    async def unmount_folder(self, session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
        """With `lazy` false one that is in use stays as it is, and is told as `busy`."""

    async def start_worker(self, kind: WorkerKind, session: str | None = None, /) -> WorkerHandle: ...

    async def kill_worker(self, worker: int, /) -> None: ...

    async def own_mount(self, path: str, *, owned: bool) -> None: ...


class LauncherPort(Protocol):
    """The launcher, from coworkd. Refusals raise `SandboxSetupFailed`/`StartFailed`; a launcher that is gone raises `Unavailable`."""

    @property
    def generation(self) -> int:
        """Grows with every new connection: sessions opened in an earlier one may be unknown now."""

    async def open_session(self, request: OpenSession, /) -> OpenedSession:
        """Build or find the session's namespaces."""

    async def make_socket(self, session: str, *, ipv6: bool = False) -> int:
        """A new TCP socket in the network namespace of an open session, neither bound nor connected; the caller's to close."""

    async def close_session(self, session: str, /) -> None: ...

    async def spawn(self, request: Spawn, policy: EffectivePolicy, /) -> SpawnedFds:
        """Make a sandbox, or take one that waits; the command itself starts when its gate is opened, and never without.

        Puts the filters if the launcher lacks them; fills in `request.id`.
        """

    async def abandon(self, process: str, /) -> None:
        """Let a sandbox go that is not let in."""

    async def annotate(self, process: str, note: bytes, /) -> None:
        """Have the launcher keep `note` of the process for the next supervisor, in the place of `Spawn.note`."""

    async def signal(self, process: str, signal: int, /) -> None: ...

    async def kill(self, process: str, /) -> None: ...

    async def forget(self, process: str, /) -> None:
        """Have the launcher let an ended process go, with its descriptors; one it does not know is passed over."""

    async def release(self, process: str, name: str, /) -> None:
        """Have the launcher close its copy of a descriptor, so that closing ours is the end of file."""

    async def keep(self, process: str, name: str, fd: int, /) -> None:
        """Hand the launcher a copy of `fd` (a terminal's master) to keep for the next supervisor."""

    def watch(self, process: str, call: Callable[[Notice | None], None], /) -> None:
        """Call `call` synchronously, from the trio thread, with each notice of `process` in order; None when the launcher is lost.

        Registered before `spawn`, so nothing is missed.
        """

    def unwatch(self, process: str, /) -> None: ...

    @property
    def adopted(self) -> list[tuple[Adopted, SpawnedFds]]:
        """What the launcher kept from an earlier supervisor; taken once by the process service, watched after that."""

    async def wait_adopted(self) -> None:
        """Return when a launcher has told what it keeps, since the last time this returned."""


class GroupState(NamedTuple):
    """What the kernel counts of a session or a command, and what it holds it to."""

    usage: GroupUsage
    limits: CgroupLimits


class GroupsPort(Protocol):
    """The cgroups of open sessions and their commands, through the launcher. All raise `InvalidState` for a session that is not open, a
    command that has ended and a kernel without cgroup v2, `Unavailable` where the launcher is gone or the kernel refuses.
    """

    async def set_limits(self, session: str, process: str | None, limits: CgroupLimits, /) -> GroupState:
        """Other limits for a session, or for one command in it; what is None stays."""

    async def freeze(self, session: str, *, frozen: bool) -> bool:
        """Stop every command of it, or let them go on; whether nothing of them runs any more. Asking again does no harm."""

    async def measure(self, session: str | None, process: str | None, /) -> GroupState:
        """Of a session, of one command in it, or with neither of all sessions."""

    async def open_pressure(self, session: str, /) -> dict[PressureKind, int]:
        """Its pressure files, the caller's; none where the kernel tells of no pressure."""


class TrustPort(Protocol):
    """The certificates that sandboxes trust."""

    @property
    def directory(self) -> str:
        """What a session sees of it, as a directory of the guest; the same one for ever."""

    @property
    def bundle_path_inside(self) -> str | None:
        """The file that holds all that is trusted, as a sandbox sees it; None while that is what the guest came with."""


class ToolsPort(Protocol):
    """The tools that sandboxes have."""

    @property
    def directory(self) -> str | None:
        """What a session has at /opt/tools, as a directory of the guest, the same one for ever; None where it cannot."""


class EgressPort(Protocol):
    """The session's only way out. Where coworkd-egress is away nothing gets out, which is told in `degraded`; sessions live on."""

    async def serve_session(self, session: str, egress: SessionEgress, listeners: tuple[int, ...], /) -> None:
        """Have the session's listeners served; they belong to the callee from here on. Never fails: see above."""

    async def change(self, session: str, egress: SessionEgress, /, *, close_forbidden: bool) -> int:
        """Another policy for the next connections; how many open ones were closed. Raises `Unavailable`."""

    async def stop(self, session: str, /) -> None:
        """The session is closed: close its listeners and connections."""

    def allowances(self, session: str, /) -> tuple[Allowance, ...]:
        """The time-limited ones that hold now."""


class FoldersPort(Protocol):
    """The folders of sessions, for whoever opens and closes sessions."""

    async def judge(self, folders: Sequence[FolderGrant], policy: EffectivePolicy, /) -> None:
        """Raise `InvalidParams` or `PolicyDenied` for the first that cannot be; no look at a source."""

    async def mount_all(
        self, record: SessionRecord, policy: EffectivePolicy, /, *, left: Sequence[str] = ()
    ) -> tuple[FailedFolder, ...]:
        """Let an open session have what its record says, and nothing else; the optional ones that failed, in order. `left` names
        what an earlier coworkd has left in it.

        Raises for a required one: `InvalidState`, `Unavailable` or `MountFailed`, with `folder`, `path` and `errno`. The others are
        there then.
        """

    async def withdraw(self, record: SessionRecord, reason: str, /) -> None:
        """Take away all folders of a session, also those that an earlier coworkd has left in it. Raises `Unavailable`, `MountFailed`."""

    async def shrink(self, record: SessionRecord, /) -> None:
        """Take away what is mounted and not, or not so, in the record: before the record becomes durable, so that it never says less
        than there is. Raises `Unavailable`.
        """

    def lacks(self, session: str, /) -> bool:
        """Whether a required folder of an open session is not there: `mount_all` comes before its next command."""

    async def unmount_all(self, session: str, /) -> None:
        """The session is about to be closed, when the launcher takes them away in reverse order: let go of what is known of them.

        Never fails. Where it is not closed after all, `mount_all` takes hold of them again.
        """

    async def forget(self, session: str, /) -> None:
        """The session is deleted: nothing of its folders stays on the session disk, stages included. Raises `DiskFailed`."""


class AwayFolder(NamedTuple):
    """A folder that nobody sees now; `root` and `source` as in `MountFolder`."""

    record: SessionRecord
    grant: FolderGrant
    root: bytes
    source: bytes


class FolderHolds(Protocol):
    """Folders, for whoever works on what lies below one while the session does not see it (commit, discard)."""

    def find(self, session: str, name: str, /) -> AwayFolder:
        """Where a folder lies, mounted or not. Raises `NotFound`."""

    def away(self, session: str, name: str, /) -> AbstractAsyncContextManager[AwayFolder]:
        """In the session's turn: the folder is taken away, and mounted again at the end, whatever happens in between.

        Raises `NotFound`, and `InvalidState` where a command uses it; it is there again then.
        """


class StagePort(Protocol):
    """Where a staged folder keeps its changes, for whoever mounts it."""

    async def prepare(self, session: str, folder: str, source: tuple[bytes, bytes], /) -> bytes:
        """The stage's directory with `upper` and `work`, made where it is missing; its baseline is taken of (root, source).

        Raises `DiskFailed`.
        """

    async def forget(self, session: str, folder: str | None, /) -> None:
        """Drop the stage of a folder, or all of a session's."""


class GuardPort(Protocol):
    """Who listens to the file systems of guarded folders (changes, asks), for whoever mounts them."""

    async def watch(self, session: str, folder: str, mounted: MountedFolder, source: bytes, mode: str, /) -> None:
        """A folder is mounted; its socket, where there is one, belongs to the callee from here on."""

    async def set_mode(self, session: str, folder: str, mode: str, ask: bool, /) -> None:
        """Change the rule of a live guarded folder. Raises `Unavailable` where its file system does not answer."""

    def unwatch(self, session: str, folder: str, /) -> None:
        """It is unmounted: what waits is denied."""


class FolderTurn(Protocol):
    """One verb's turn at a session."""

    @property
    def record(self) -> SessionRecord:
        """As it stands; another after `keep`."""

    @property
    def is_open(self) -> bool: ...

    async def effective(self) -> EffectivePolicy:
        """What holds for the session. Raises `PolicyDenied`, `NotFound`."""

    async def keep(self, record: SessionRecord, /) -> None:
        """Make it durable. Raises `DiskFailed`; the old one then stands."""


class SessionFolders(Protocol):
    """What folders need of sessions: their records, one verb at a time."""

    def turn(self, session: str, *, opened: bool) -> AbstractAsyncContextManager[FolderTurn]:
        """Wait for the session's turn; with `opened` its namespaces are there, whatever became of its optional folders.

        Raises `NotFound`, `InvalidState`, and what opening it does.
        """

    def record(self, session: str, /) -> SessionRecord:
        """Raises `NotFound`."""

    def is_open(self, session: str, /) -> bool: ...

    def commands(self, session: str, /) -> int:
        """How many run."""


class StorageGuard(Protocol):
    """Whether there is room, for whoever is about to make something that stays."""

    def refuse_if_unusable(self) -> None:
        """Raises `Unavailable` with the reason while the session disk is degraded or absent."""

    def freed(self, freed_bytes: int, /) -> None:
        """So much was deleted: the device is told before long."""


class ReservePort(Protocol):
    """What coworkd holds back for a full disk. Blocking."""

    def release(self) -> bool:
        """Give it up, so that one more record can be written; whether there was anything to give."""


class QuotaPort(Protocol):
    """How the kernel keeps sessions to their part of the disk, where it can. Blocking; `OSError` where it refuses."""

    @property
    def kind(self) -> Literal["project", "watched"]:
        """`watched`: the kernel cannot, and the other verbs are not called."""

    def set_limit(self, path: str, project: int, limit_bytes: int, limit_files: int) -> None:
        """Count the directory `path`, and all that will be made in it, as `project`; 0 limits nothing."""

    def usage(self, project: int) -> tuple[int, int]:
        """Bytes and files that are counted as `project` now."""


class SessionDirectory(Protocol):
    """What the process service needs of sessions."""

    async def open(self, name: str, /) -> SessionView:
        """A ready session whose namespaces are open in the launcher; raises `NotFound` or `InvalidState`."""

    async def open_for_command(self, name: str, /) -> SessionView:
        """The same, and a command begins in it; raises `LimitExceeded` where it has used up its part of the disk, `InvalidState` where it
        is paused.
        """


class PolicyPort(Protocol):
    """What sessions and processes need of policy."""

    async def effective(self, profile: str | None, limits: LimitsRequest, /) -> EffectivePolicy:
        """Profile ∩ ceiling ∩ request with both filters compiled and checked; raises `PolicyDenied`, `NotFound`."""


class SessionPolicyPort(PolicyPort, Protocol):
    """What sessions and the way out need of policy."""

    def presets(self) -> EgressPresets:
        """What each preset came to on this machine."""

    def compose_egress(
        self, policy: EffectivePolicy, request: Mapping[str, Any] | None, /
    ) -> tuple[SessionEgress, tuple[str, ...]]:
        """What a session may reach, and a sentence for all that `request` (an srt-settings object) asked in vain.

        Raises `InvalidParams` with the key that is wrong.
        """


class ProcessDirectory(Protocol):
    """What the session service needs of processes."""

    def count(self, session: str, /) -> int: ...

    async def end_session(self, session: str, /) -> None:
        """Kill every process of the session and wait until each is gone. Raises `Unavailable` where one hangs in the kernel."""


class CallerDirectory(Protocol):
    """What those who watch sessions need of processes: which command did it."""

    def find_by_ancestor(self, pid: int, /) -> tuple[str, str] | None:
        """The session and process whose command this is, or in whose sandbox everything has this ancestor: its bubblewrap, or its init."""

    def only_one_at(self, session: str, at: float, /) -> str | None:
        """The one process of `session` that ran at that time; None where there was none, or more than one, or it is not known any more."""


class ExitListener(Protocol):
    """Called by the process service for every exit record, after the last byte of complete streams."""

    def exited(self, record: ExitRecord, /) -> None: ...
