"""A session's listening sockets for real: where they are, who reaches them, what a session can do to them, what is left of them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.model import launch
from tests.root.launcher_talk import UID, Started, Talk, open_launcher, session_request, spawn_request
from tests.root.live import children_of, wait_until

pytestmark = pytest.mark.needs("userns", "netns")

PLACES = (
    "('127.0.0.1', 3128)",
    "('127.0.0.1', 1080)",
    "'/tmp/claude-http-bob.sock'",
    "'/tmp/claude-socks-bob.sock'",
)
CONNECT = """
import socket
place = {place}
with socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET) as s:
    s.settimeout(60)
    s.connect(place)
    s.sendall(b'hello')
    print(s.recv(10).decode())
"""
OTHER_UID = UID + 1


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    with open_launcher(tmp_path) as started:
        yield started


def opened(talk: Talk, request: launch.OpenSession) -> list[socket.socket]:
    """The session's listeners."""
    before = len(talk.fds)
    reply = talk.ask(request)
    assert isinstance(reply, launch.Opened), reply
    fds, talk.fds[before:] = talk.fds[before:], []
    return [socket.socket(fileno=fd) for fd in fds]


@contextlib.contextmanager
def bob(launcher: Started, tmp_path: Path) -> Iterator[tuple[Talk, list[socket.socket]]]:
    talk = launcher.ready()
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(each) for each in opened(talk, session_request(tmp_path / "home"))]
        yield talk, listeners


def python(talk: Talk, script: str) -> launch.Spawned:
    return talk.start(spawn_request(["/usr/bin/python3", "-I", "-c", script]))


def output(talk: Talk, script: str, **fields: Any) -> str:
    """What a script says to stdout in the sandbox; it ends well."""
    ended, said = talk.run(spawn_request(["/usr/bin/python3", "-I", "-c", script], **fields))
    talk.ask(launch.Forget(id=0, process="p1"))
    assert isinstance(ended, launch.Exited), ended
    assert (ended.code, ended.signal) == (0, None), said
    return said.decode()


def accept_any(listeners: list[socket.socket]) -> socket.socket:
    """The first connection to any of them."""
    made: list[socket.socket] = []

    def ready() -> bool:
        for each in listeners:
            with contextlib.suppress(BlockingIOError):
                made.append(each.accept()[0])
        return bool(made)

    wait_until(ready, "nobody connected")
    made[0].settimeout(60)
    return made[0]


def launcher_pid(talk: Talk) -> int:
    return int.from_bytes(talk.link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def sockets_of(pid: int) -> set[str]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return {link for link in found if link.startswith("socket:")}


def inode(each: socket.socket) -> str:
    return os.readlink(f"/proc/self/fd/{each.fileno()}")


# -- where they are -----------------------------------------------------------------------------------------------


def test_a_session_has_four_listeners_that_do_not_block(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (_, listeners):
        families = [each.family for each in listeners]
        assert families.count(socket.AF_UNIX) == families.count(socket.AF_INET) == 2
        ports = {each.getsockname() for each in listeners if each.family == socket.AF_INET}
        assert ports == {("127.0.0.1", 3128), ("127.0.0.1", 1080)}
        for each in listeners:
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            assert not os.get_blocking(each.fileno())
            with pytest.raises(BlockingIOError):
                each.accept()


@pytest.mark.parametrize("place", PLACES)
def test_a_command_reaches_each_of_them(launcher: Started, tmp_path: Path, place: str) -> None:
    with bob(launcher, tmp_path) as (talk, listeners):
        stdout = talk.take(python(talk, CONNECT.format(place=place)), "stdout")
        with accept_any(listeners) as served:
            assert served.recv(10) == b"hello"
            served.sendall(b"served")
        with open(stdout, "rb") as file:
            assert file.read() == b"served\n"
        assert talk.wait(launch.Exited).code == 0


def test_they_are_not_in_the_namespace_of_anyone_else(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, listeners):
        here = Path("/proc/net/tcp").read_text()
        assert not [each for each in listeners if f" {inode(each)[8:-1]} " in here]
        assert os.readlink(f"/proc/{launcher_pid(talk)}/ns/net") == os.readlink("/proc/self/ns/net")


def test_another_session_sees_its_own_and_no_other(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, _):
        for each in opened(talk, session_request(tmp_path / "eve", name="eve", uid=OTHER_UID)):
            each.close()
        said = output(talk, "import os; print(*sorted(os.listdir('/tmp')))", name="eve", uid=OTHER_UID)
        assert said == "claude-http-eve.sock claude-socks-eve.sock\n"
        assert "bob" not in output(talk, "print(open('/proc/net/unix').read())", name="eve", uid=OTHER_UID)


@pytest.mark.parametrize(("uid", "said"), [(UID, "connected"), (OTHER_UID, "EACCES")])
def test_only_the_sessions_uid_may_connect(launcher: Started, tmp_path: Path, uid: int, said: str) -> None:
    """As another uid that has somehow come into the session's mount namespace."""
    script = (
        "import errno, os, socket, sys\n"
        "from coworkd.system import namespaces\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "namespaces.setns(os.open(f'/proc/{sys.argv[1]}/ns/mnt', os.O_RDONLY), namespaces.CLONE_NEWNS)\n"
        "os.setgroups([]); os.setresgid(*[int(sys.argv[2])] * 3); os.setresuid(*[int(sys.argv[2])] * 3)\n"
        "number = s.connect_ex('/tmp/claude-http-bob.sock')\n"
        "print(errno.errorcode[number] if number else 'connected')\n"
    )
    with bob(launcher, tmp_path) as (talk, _):
        python(talk, "import time; time.sleep(60)")
        pid = talk.wait(launch.Started).payload_pid
        done = subprocess.run(
            [sys.executable, "-c", script, str(pid), str(uid)], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.stdout, done.stderr) == (f"{said}\n", "")


# -- what a session can do to them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "numbers"),
    [
        ("os.unlink(p)", (errno.EBUSY,)),
        ("os.rename(p, '/tmp/x')", (errno.EBUSY,)),
        ("open('/tmp/x', 'w').close(); os.rename('/tmp/x', p)", (errno.EBUSY,)),
        ("os.link(p, '/tmp/x')", (errno.EXDEV, errno.EPERM)),
        ("os.chmod(p, 0o666)", (errno.EROFS,)),
        ("os.chown(p, os.getuid(), -1)", (errno.EROFS,)),
        ("socket.socket(socket.AF_UNIX).bind(p)", (errno.EADDRINUSE,)),
        ("bind(socket.AF_INET, '127.0.0.1')", (errno.EADDRINUSE,)),
        ("bind(socket.AF_INET, '0.0.0.0')", (errno.EADDRINUSE,)),
        ("bind(socket.AF_INET6, '::')", (errno.EADDRINUSE,)),
        ("bind(socket.AF_INET6, '::ffff:127.0.0.1')", (errno.EADDRINUSE,)),
    ],
)
def test_a_session_cannot_take_their_place(
    launcher: Started, tmp_path: Path, attempt: str, numbers: tuple[int, ...]
) -> None:
    script = f"""
import os, socket
p = '/tmp/claude-http-bob.sock'
def bind(family, address):
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind((address, 3128))
        s.listen()
try:
    {attempt}
    print('done')
except OSError as error:
    print(error.errno)
"""
    with bob(launcher, tmp_path) as (talk, _):
        assert output(talk, script) in [f"{number}\n" for number in numbers]
        stat = "import os; s = os.stat('/tmp/claude-http-bob.sock'); print(s.st_uid, oct(s.st_mode))"
        assert output(talk, stat) == f"{UID} 0o140600\n"


def test_no_command_and_no_sandbox_holds_one(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, listeners):
        spawned = python(talk, "import time; time.sleep(60)")
        started = talk.wait(launch.Started)
        ours = {inode(each) for each in listeners}
        assert ours <= sockets_of(launcher_pid(talk))
        for pid in (spawned.monitor_pid, started.init_pid, started.payload_pid):
            assert not ours & sockets_of(pid)
        wait_until(
            lambda: len(children_of(launcher_pid(talk))) >= 3, "there is no standby beside the monitor and the forker"
        )
        # One that was forked this very moment is about to close them.
        wait_until(
            lambda: not [pid for pid in children_of(launcher_pid(talk)) if holds(pid, ours)], "a child holds one"
        )


# -- how long they live -------------------------------------------------------------------------------------------


def test_an_open_session_gives_the_same_ones_again(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, listeners):
        again = opened(talk, session_request(tmp_path / "home"))
        assert [inode(each) for each in again] == [inode(each) for each in listeners]
        for each in again:
            each.close()


def test_they_outlive_their_supervisor_and_who_comes_meanwhile_waits(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, _):
        pass
    talk.start(spawn_request(["/usr/bin/python3", "-I", "-c", CONNECT.format(place=PLACES[0])]))
    talk.wait(launch.Started)
    talk.close()
    after = launcher.ready()
    listeners = opened(after, session_request(tmp_path / "home"))
    with accept_any(listeners) as served:
        assert served.recv(10) == b"hello"
        served.sendall(b"late")
    assert after.wait(launch.Exited).code == 0
    for each in listeners:
        each.close()


def test_a_closed_session_has_none(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, listeners):
        pid = launcher_pid(talk)
        ours = {inode(each) for each in listeners}
        assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
        assert not ours & sockets_of(pid)
        talk.close()
    with bob(launcher, tmp_path) as (_, listeners):
        assert len(listeners) == 4
        assert not ours & {inode(each) for each in listeners}


def test_opening_and_closing_leaves_no_descriptor(launcher: Started, tmp_path: Path) -> None:
    talk = launcher.ready()
    pid = launcher_pid(talk)

    def once() -> int:
        for each in opened(talk, session_request(tmp_path / "home")):
            each.close()
        assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
        return len(os.listdir(f"/proc/{pid}/fd"))

    # What is made ahead for a session that was opened is there by its closing, or is not: but never twice.
    first = max(once() for _ in range(20))
    assert max(once() for _ in range(20)) <= first


def test_they_have_no_name_in_the_guest_and_none_of_it_is_shown(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, _):
        assert os.listdir(launcher.directory / "base") == []
        named = Path("/proc/net/unix").read_text()
        shown = output(talk, "print(open('/proc/self/mountinfo').read())")
        roots = {line.split()[3] for line in shown.splitlines() if ".sock " in line}
        assert roots == {"/listeners/claude-http-bob.sock", "/listeners/claude-socks-bob.sock"}
        assert output(talk, "import os; print(os.path.exists('/listeners'))") == "False\n"
        assert str(launcher.directory / "base") not in named


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_ends_leaves_none(tmp_path: Path, how: signal.Signals) -> None:
    with open_launcher(tmp_path) as started:
        with bob(started, tmp_path) as (talk, listeners):
            os.kill(launcher_pid(talk), how)
            started.child.wait(60)
            ours = {inode(each) for each in listeners}
        assert os.listdir(tmp_path / "base") == []
        holders = [pid for pid in os.listdir("/proc") if pid.isdigit() and holds(int(pid), ours)]
        assert holders == []


def test_a_long_base_is_no_hindrance(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    (tmp_path / "short").symlink_to(deep)
    with open_launcher(tmp_path / "short") as started, bob(started, tmp_path) as (_, listeners):
        assert len(listeners) == 4


# -- sockets to order ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ipv6", "address"), [(False, "127.0.0.1"), (True, "::1")])
def test_a_socket_is_of_the_sessions_namespace(launcher: Started, tmp_path: Path, ipv6: bool, address: str) -> None:
    serve = f"""
import socket
with socket.create_server(({address!r}, 8000), family=socket.AF_INET6 if {ipv6} else socket.AF_INET) as s:
    print('listens', flush=True)
    c = s.accept()[0]
    c.sendall(b'from inside')
    c.close()
"""
    with bob(launcher, tmp_path) as (talk, _):
        stdout = talk.take(python(talk, serve), "stdout")
        with open(stdout, "rb") as file:
            assert file.readline() == b"listens\n"
            reply = talk.ask(launch.MakeSocket(id=0, session="bob", ipv6=ipv6))
            assert isinstance(reply, launch.SocketMade), reply
            with socket.socket(fileno=talk.fds.pop()) as made:
                assert not os.get_blocking(made.fileno())
                assert not os.get_inheritable(made.fileno())
                made.settimeout(60)
                made.connect((address, 8000))
                assert made.recv(100) == b"from inside"
        assert talk.wait(launch.Exited).code == 0
        assert os.readlink(f"/proc/{launcher_pid(talk)}/ns/net") == os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("session", ["eve", "", "../x"])
def test_no_socket_is_made_where_there_is_no_session(launcher: Started, session: str) -> None:
    reply = launcher.ready().ask(launch.MakeSocket(id=0, session=session))
    assert isinstance(reply, launch.Refused)
    assert (reply.stage, reply.errno) == ("session", errno.ESRCH)


def test_a_thousand_sockets_leave_nothing_in_the_launcher(launcher: Started, tmp_path: Path) -> None:
    with bob(launcher, tmp_path) as (talk, _):
        counts = []
        for _ in range(2):  # a standby is made meanwhile
            for _ in range(500):
                assert isinstance(talk.ask(launch.MakeSocket(id=0, session="bob")), launch.SocketMade)
                os.close(talk.fds.pop())
            assert isinstance(talk.ask(launch.Ping(id=0)), launch.Done)  # it closes its own after the answer
            counts.append(len(os.listdir(f"/proc/{launcher_pid(talk)}/fd")))
        assert counts[0] == counts[1]


def holds(pid: int, sockets: set[str]) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        return bool(sockets & sockets_of(pid))
    return False
