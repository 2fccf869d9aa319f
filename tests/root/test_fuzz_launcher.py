"""The launcher's socket, with a supervisor gone mad: any packets, any words, any descriptors. It refuses or hangs up, and goes on.

Behind each round: the launcher and a command that was there before live, a new supervisor is let in and served, a command is started
as ever (its user, two filters, three descriptors), and nothing runs that has fewer filters. Behind all of them the launcher holds no
more than before.

The launcher runs in a mount namespace of its own where nothing but the test's directory can be written: what root is asked to do here, it
may do.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import structs

from coworkd.model import launch
from coworkd.model.launch import INLINE_LIMIT_BYTES
from coworkd.system import packet
from tests.fuzz.budget import play
from tests.fuzz.mutate import ODD_TEXTS, Maker, mutate
from tests.root.accounting import Books, grown
from tests.root.launcher_talk import (
    ALLOW,
    UID,
    Started,
    Talk,
    open_launcher,
    session_request,
    sha256,
    spawn_request,
)
from tests.root.live import children_of, wait_until

pytestmark = pytest.mark.needs("userns", "netns", "mountns")
SHARE = 0.12
MOVES = 40
NAMES = ("work", "stdin", "stdout", "../x")
"""Of folders, and of descriptors."""
_LATE = ("launcher: /memfd:coworkd-shim (deleted)", "cgroups: s-bob/helpers")
"""Made once, with the first terminal and with a session's first folder, and kept from then on."""
_ALONE = 'mount --bind "$0" "$0" && mount -o remount,ro,bind / && exec "$@"'
_REQUESTS = [kind for kind in get_args(launch.Request) if kind is not launch.Quit]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    below = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ALONE, str(tmp_path)]
    with open_launcher(tmp_path, linger_s=600, below=below) as started:
        yield started


class Mad:
    """One supervisor, and what it has at hand. Requests are made by the words' own types."""

    def __init__(self, chance: random.Random, launcher: Started, home: Path) -> None:
        self.chance = chance
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(0)
        self.link.connect(launcher.path)
        spawn = spawn_request(["sleep", "30"], process="mad")
        self._right: list[launch.Request] = [
            launch.Adopt(id=1, version="mad"),
            launch.PutFilter(id=2, sha256=sha256(ALLOW), bpf=ALLOW),
            session_request(home),
            spawn,
            spawn_request(["cat"], process="cat", stdin=True),
            launch.Abandon(id=0, process="mad"),
            launch.Kill(id=0, process="mad"),
            launch.Signal(id=0, process="mad", signal=9),
            launch.Forget(id=0, process="mad"),
            launch.MountFolder(id=0, session="bob", name="work", root=bytes(home), source=b".", mode="rw"),
        ]
        self._encoded = [msgspec.msgpack.encode(structs.replace(each, id=7)) for each in self._right]
        self._maker = Maker(
            chance,
            {
                "session": ("bob", "eve", "../x"),
                "process": ("mad", "cat", "kept", "x/y"),
                "uid": (UID, UID, UID, 0, 1000, 65534),
                "gid": (UID, UID, UID, 0, 1000),
                "filters": ((sha256(ALLOW), sha256(ALLOW)), ("", ""), (sha256(ALLOW), "f" * 64)),
                "argv": ((b"true",), (b"sleep", b"5"), (), (b"",), (b"no-such",)),
                "bwrap_args": (spawn.bwrap_args, (), (b"--bind", b"/", b"/"), (b"--args", b"9")),
                "root": (bytes(home),),
                "source": (b".", b"mnt", b"..", b"/", b"no/such"),
                "path": (b"/x", b"/sessions/bob/x", b"relative", b"/../x", b"//"),
                "stage": (b"", bytes(home / "stage")),
                "journal": (b"", bytes(home / "journal")),
                "deadline_s": (0.2, 0.05, -1.0),
                "kind": ("files", "measure", "nothing"),
                "name": NAMES,
                "id": (1, 2, 3, -1, 2**63 - 1),
            },
        )

    def move(self) -> None:
        """Send something; a launcher that has hung up is found out by the next round."""
        data, fds = self._packet()
        try:
            self._send(data, fds)
        finally:
            for fd in fds:
                os.close(fd)
        with contextlib.suppress(OSError):
            for _ in range(self.chance.randint(0, 6)):
                answer, ancillary, flags, _ = self.link.recvmsg(*packet.RECEIVE_ARGUMENTS)
                for fd in packet.unpack(answer, ancillary, flags)[1]:
                    os.close(fd)

    def _send(self, data: bytes, fds: list[int]) -> None:
        with contextlib.suppress(OSError):  # full, too long for a packet, or hung up
            if fds:
                socket.send_fds(self.link, [data], fds)
            else:
                self.link.send(data)

    def _packet(self) -> tuple[bytes, list[int]]:
        choice = self.chance.random()
        if choice < 0.25:
            return self.chance.choice(self._encoded), self._descriptors(0.2)
        if choice < 0.65:
            kind = self.chance.choice(_REQUESTS)
            made = self._maker.make(kind, confused=self.chance.random() < 0.3)
            return self._long_or_not(msgspec.msgpack.encode(made), 0.3)
        if choice < 0.85:
            return self._long_or_not(mutate(self.chance, self.chance.choice(self._encoded), self._encoded), 0.3)
        if choice < 0.95:
            return self.chance.randbytes(self.chance.choice((0, 1, 2, 10, 300, 66_000))), self._descriptors(0.5)
        return b"\0", self._memfd_that_lies()

    def _long_or_not(self, message: bytes, strange: float) -> tuple[bytes, list[int]]:
        """As it is, or in a memfd: what does not fit into a packet, and sometimes what does."""
        if len(message) > INLINE_LIMIT_BYTES or self.chance.random() < 0.1:
            fd = os.memfd_create("mad")
            os.write(fd, message)
            return b"\0", [fd, *self._descriptors(strange)]
        return message, self._descriptors(strange)

    def _memfd_that_lies(self) -> list[int]:
        """A long message that is none: too long, empty, a directory, a pipe."""
        made = self.chance.randrange(5)
        if made == 0:
            fd = os.memfd_create("mad")
            os.ftruncate(fd, launch.MESSAGE_LIMIT_BYTES + self.chance.choice((0, 1, 1 << 40)))
        elif made == 1:
            fd = os.memfd_create("mad")
        elif made == 2:
            fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        elif made == 3:
            fd, other = os.pipe()
            os.close(other)
        else:
            fd = os.open("/dev/zero", os.O_RDONLY)
        return [fd, *self._descriptors(0.3)]

    def _descriptors(self, likely: float) -> list[int]:
        if self.chance.random() > likely:
            return []
        count = self.chance.choice((1, 1, 2, 3, 63, 64, 65, 250))
        return [os.open(self.chance.choice(("/dev/null", "/", "/proc/self/status")), os.O_RDONLY) for _ in range(count)]


def test_no_supervisor_ends_the_launcher_or_what_it_keeps(launcher: Started, tmp_path: Path) -> None:
    keeper = launcher.ready()
    assert isinstance(keeper.ask(session_request(tmp_path / "home")), launch.Opened)
    keeper.ask(launch.OpenPressure(id=0, session="bob"))  # the launcher keeps these files, whoever asks for them first
    keeper.drop_fds()
    keeper.start(spawn_request(["sleep", "1000"], process="kept"))
    kept = os.pidfd_open(keeper.wait(launch.Started).payload_pid)  # its number may become another's
    keeper.close()
    (pid,) = children_of(launcher.child.pid)
    books = Books(launcher.child.pid, pid, None if launcher.cgroup is None else Path(launcher.cgroup))
    served_again(launcher, tmp_path)
    before = books.look_when_steady()

    def one_round(chance: random.Random) -> None:
        mad = Mad(chance, launcher, tmp_path / "home")
        for _ in range(chance.randint(1, MOVES)):
            mad.move()
            assert_filtered(pid)
        mad.link.close()
        assert launcher.child.poll() is None, "the launcher has ended"
        served_again(launcher, tmp_path)
        wait_until(lambda: has_ended(kept) != chosen_alive(launcher), "the launcher knows of the end of who was there")

    rounds = play(SHARE, one_round)
    served_again(launcher, tmp_path)
    without_folders(launcher)

    def held() -> dict[str, tuple[int, int]]:
        more = grown(before, books.look())
        return {name: counts for name, counts in more.items() if name not in _LATE or counts[1] > 1}

    wait_until(lambda: not held(), f"nothing is held after {rounds} rounds: {held()}")
    os.close(kept)


def has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def chosen_alive(launcher: Started) -> bool:
    """Whether the launcher still knows the command that was there first: a mad supervisor may well have killed it in due form."""
    talk = launcher.talk()
    talk.ask(launch.Adopt(id=0, version="test"))
    kept = [each for each in talk.heard if isinstance(each, launch.Adopted) and each.process == "kept"]
    talk.close()
    return any(each.exited is None for each in kept)


def served_again(launcher: Started, tmp_path: Path) -> None:
    """A supervisor in its right mind is served as ever, and takes away what the one before has left."""
    talk = launcher.talk()
    taken = talk.ask(launch.Adopt(id=0, version="test"))
    assert isinstance(taken, launch.TakenOver), taken
    for left in [each for each in talk.heard if isinstance(each, launch.Adopted)]:
        if left.process != "kept":
            end(talk, left.process)
    talk.ask(launch.PutFilter(id=0, sha256=sha256(ALLOW), bpf=ALLOW))
    for name in taken.sessions:
        if name != "bob":
            talk.ask(launch.CloseSession(id=0, session=name))
    opened = talk.ask(session_request(tmp_path / "right", name="right", uid=UID + 1, gid=UID + 1))
    assert isinstance(opened, launch.Opened), opened
    talk.drop_fds()
    script = "grep -E '^(Uid|Seccomp_filters|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l"
    spawn = spawn_request(["sh", "-c", script], process="right", name="right", uid=UID + 1, gid=UID + 1)
    filters = (sha256(ALLOW), sha256(ALLOW))
    ended, output = talk.run(structs.replace(spawn, filters=filters))
    uid = UID + 1
    assert output.decode().split() == [
        *("Uid:", *[str(uid)] * 4, "NoNewPrivs:", "1", "Seccomp_filters:", "2"),
        "4",
    ], (ended, output)
    end(talk, "right")
    assert isinstance(talk.ask(launch.CloseSession(id=0, session="right")), launch.Done)
    talk.close()


def without_folders(launcher: Started) -> None:
    """Take away what a mad supervisor has mounted in due form in the session that stays."""
    talk = launcher.talk()
    for name in (*NAMES, *ODD_TEXTS):
        talk.ask(launch.UnmountFolder(id=0, session="bob", name=name))
    talk.close()


def end(talk: Talk, process: str) -> None:
    """Kill, and forget once it has ended."""
    talk.ask(launch.Abandon(id=0, process=process))
    talk.ask(launch.Kill(id=0, process=process))
    wait_until(lambda: isinstance(talk.ask(launch.Forget(id=0, process=process)), launch.Done), f"{process} ends")
    talk.drop_fds()


def assert_filtered(launcher: int) -> None:
    """Whatever runs as a command, and is not of ours or bubblewrap's, has its two filters and no root."""
    for pid in below(launcher):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            program = os.readlink(f"/proc/{pid}/exe").rpartition("/")[2]
            if program.startswith(("python", "bwrap")) or program == "":
                continue
            status: dict[str, Any] = dict(
                line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
            )
            assert int(status["Seccomp_filters"]) >= 2, f"{program} runs without its filters"
            assert "0" not in status["Uid"].split(), f"{program} runs as root"


def below(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = children_of(waiting.pop())
            found += children
            waiting += children
    return found
