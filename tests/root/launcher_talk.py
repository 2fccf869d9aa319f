"""A launcher of one's own, driven over its socket word by word, and words that it takes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from coworkd.cli.launcher_start import launcher_command
from coworkd.model import launch
from coworkd.model.limits import CgroupLimits
from coworkd.model.policy import FolderMode, LimitsRequest
from coworkd.model.process import ProcessSpec, TtySize
from coworkd.model.session import FolderGrant, SessionView
from coworkd.sandbox.compose import compose
from coworkd.sandbox.tree import compose_tree, folder_path
from coworkd.system import packet
from coworkd.system.cgroup import choose_own, remove
from coworkd.system.guest import read_bwrap_features, read_layout
from tests.unit.sandbox.spawn_room import POLICY

UID = 58_001
WAIT_S = 60.0
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # return SECCOMP_RET_ALLOW
LOG = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFC0000)  # return SECCOMP_RET_LOG
LAYOUT, FEATURES = read_layout(), read_bwrap_features()


def sha256(program: bytes) -> str:
    return hashlib.sha256(program).hexdigest()


class Talk:
    """A supervisor's connection. Notices that come before an answer are kept in `heard`, descriptors in `fds`, but the gates of commands in
    `gates`.
    """

    def __init__(self, path: str) -> None:
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(WAIT_S)
        self.link.connect(path)
        self.heard: list[Any] = []
        self.fds: list[int] = []
        self.gates: dict[str, int] = {}
        self._id = 0

    def tell(self, request: launch.Request, *fds: int) -> int:
        self._id += 1
        data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(structs.replace(request, id=self._id)), fds)
        self.link.sendmsg(data, ancillary)
        if memfd >= 0:
            os.close(memfd)
        return self._id

    def next(self) -> Any:
        """The next message; EOFError at the end."""
        data, ancillary, flags, _ = self.link.recvmsg(*packet.RECEIVE_ARGUMENTS)
        message, fds = packet.unpack(data, ancillary, flags)
        if not message:
            raise EOFError
        reply = msgspec.msgpack.decode(message, type=launch.Reply)
        if isinstance(reply, launch.Spawned):
            assert reply.fds[-1] == "gate"
            self.gates[reply.process] = fds.pop()
            reply = structs.replace(reply, fds=reply.fds[:-1])
        self.fds += fds
        return reply

    def ask(self, request: launch.Request, *fds: int) -> Any:
        """The answer of exactly this request; `Adopted`s before it are kept in `heard`, as notices are."""
        number = self.tell(request, *fds)
        while True:
            reply = self.next()
            if getattr(reply, "id", None) == number and not isinstance(reply, launch.Adopted):
                return reply
            self.heard.append(reply)

    @property
    def last_id(self) -> int:
        """The newest request's."""
        return self._id

    def heard_of(self, number: int) -> Any:
        """The answer of a request that was told before."""
        while True:
            for position, reply in enumerate(self.heard):
                if getattr(reply, "id", None) == number:
                    return self.heard.pop(position)
            self.heard.append(self.next())

    def wait(self, *kinds: type) -> Any:
        """The first notice of these kinds, heard already or still to come; it is taken. A start that came with its end counts, too."""
        while True:
            for position, notice in enumerate(self.heard):
                if isinstance(notice, kinds):
                    return self.heard.pop(position)
            heard = self.next()
            if isinstance(heard, launch.Exited) and heard.started is not None:
                self.heard.append(heard.started)
            self.heard.append(heard)

    def run(self, spawn: launch.Spawn) -> tuple[Any, bytes]:
        """Start it and wait for its end: the last notice and all of stdout."""
        spawned = self.start(spawn)
        stdout = self.take(spawned, "stdout")
        with open(stdout, "rb") as file:
            output = file.read()
        return self.wait(launch.Exited, launch.StartError), output

    def start(self, spawn: launch.Spawn) -> launch.Spawned:
        spawned = self.ask(spawn)
        assert isinstance(spawned, launch.Spawned), spawned
        self.let_in(spawn.process)
        return spawned

    def let_in(self, process: str) -> None:
        """Open its gate, behind which nobody may wait any more."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.gates[process], launch.GO)
        os.close(self.gates.pop(process))

    def take(self, spawned: launch.Spawned, name: str) -> int:
        """The descriptor `name` of the answer that came last; the others are closed."""
        by_name = dict(zip(spawned.fds, self.fds[-len(spawned.fds) :], strict=True))
        del self.fds[-len(spawned.fds) :]
        wanted = by_name.pop(name)
        for fd in by_name.values():
            os.close(fd)
        return wanted

    def drop_fds_but(self, kept: int) -> None:
        self.fds.remove(kept)
        self.drop_fds()

    def drop_fds(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def drop_gates(self) -> None:
        while self.gates:
            os.close(self.gates.popitem()[1])

    def close(self) -> None:
        self.link.close()
        self.drop_fds()
        self.drop_gates()


def own_cgroup(directory: Path) -> str | None:
    """The cgroup of the launcher of `directory`; None where there is no cgroup v2."""
    return choose_own(f"coworkd-test-{os.getpid()}-{os.stat(directory).st_ino:x}")


class Started:
    """A launcher that was started; `talk` is a new supervisor."""

    def __init__(self, directory: Path, linger_s: float, *, below: Sequence[str] = ()) -> None:
        """`below` is a command that executes what follows it (unshare)."""
        self.directory = directory
        self.path = str(directory / "launcher.sock")
        self.cgroup = own_cgroup(directory)
        (directory / "base").mkdir()
        words = ["--socket", self.path, "--base", str(directory / "base"), "--linger", str(linger_s)]
        words += ["--bubblewrap", FEATURES.path]
        if self.cgroup is not None:
            words += ["--cgroup", self.cgroup]
        self.child = subprocess.Popen(
            [*below, *launcher_command(words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        while not os.path.exists(self.path):
            assert self.child.poll() is None
        self.talks: list[Talk] = []

    def talk(self) -> Talk:
        self.talks.append(Talk(self.path))
        return self.talks[-1]

    def ready(self) -> Talk:
        """A supervisor that has adopted, put both filters and opened the session `bob`."""
        talk = self.talk()
        assert isinstance(talk.ask(launch.Adopt(id=0, version="test")), launch.TakenOver)
        for program in (ALLOW, LOG):
            assert isinstance(talk.ask(launch.PutFilter(id=0, sha256=sha256(program), bpf=program)), launch.Done)
        return talk

    def close(self) -> None:
        for talk in self.talks:
            talk.close()
        if self.child.poll() is None:
            self.child.terminate()
        self.child.wait(WAIT_S)
        if self.cgroup is not None:  # one that was killed leaves it to its successor, and there is none
            remove(self.cgroup, wait_s=1.0)
        assert self.child.stdout is not None
        self.child.stdout.close()


@contextlib.contextmanager
def open_launcher(directory: Path, *, linger_s: float = 20.0, below: Sequence[str] = ()) -> Iterator[Started]:
    """A launcher that is gone, with all it held, at the end of the `with`."""
    started = Started(directory, linger_s, below=below)
    try:
        yield started
    finally:
        started.close()


def folder_request(source: Path, mode: FolderMode = "rwd", *, name: str = "work", **fields: Any) -> launch.MountFolder:
    """What coworkd asks for, in the session `bob`."""
    known = {"root": b"/", "source": bytes(source)[1:], "mode": mode, "name": name, "session": "bob", **fields}
    return launch.MountFolder(id=0, **known)


def make_stage(directory: Path, uid: int = UID) -> Path:
    """A stage as coworkd makes it."""
    for name in ("upper", "work"):
        (directory / name).mkdir(parents=True)
    os.chown(directory / "upper", uid, uid)
    return directory


def session_request(
    home: Path, *folders: FolderGrant, name: str = "bob", uid: int = UID, **fields: Any
) -> launch.OpenSession:
    """What coworkd asks for; `home` is made and owned as coworkd does it."""
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, uid, uid)
    (home / "mnt").mkdir(exist_ok=True)
    known: dict[str, Any] = {
        "uid": uid,
        "gid": uid,
        "limits": CgroupLimits(memory_max_bytes=1 << 30, pids_max=200, cpu_max=1.0),
        "tree": (
            *compose_tree(name=name, uid=uid, home=bytes(home), tmp_max_bytes=8 << 20, layout=LAYOUT),
            *(
                launch.TreeBind(
                    source=folder.source.encode(),
                    path=folder_path(name, folder.name),
                    read_only=folder.mode == "ro",
                    optional=not folder.required,
                    map_owner=True,
                )
                for folder in folders
            ),
        ),
    }
    return launch.OpenSession(id=0, session=name, **{**known, **fields})


def spawn_request(
    argv: Sequence[str],
    *,
    process: str = "p1",
    name: str = "bob",
    uid: int = UID,
    tty: TtySize | None = None,
    stdin: bool = False,
    **fields: Any,
) -> launch.Spawn:
    """What coworkd asks for, with filters that allow everything."""
    spec = ProcessSpec(
        process=process,
        session=name,
        argv=tuple(word.encode() for word in argv),
        env={},
        cwd=None,
        stdin=stdin,
        tty=tty,
    )
    view = SessionView(
        name=name,
        uid=uid,
        gid=uid,
        home=b"/sessions/" + name.encode(),
        profile="default",
        limits=LimitsRequest(),
        env={},
        folders=(),
    )
    spawn = compose(spec, view, POLICY, layout=LAYOUT, features=FEATURES)
    return structs.replace(spawn, **{"filters": (sha256(ALLOW), sha256(LOG)), **fields})
