"""The child that forks: whose the children are, what they get, and its own ends. Each process is real; what they become is not."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import cast

import pytest

from coworkd.launcher import child, forker
from coworkd.launcher.forker import Forker
from coworkd.launcher.formats import Formats
from coworkd.system import clone
from tests.unit.launcher.launcher_room import open_fds

FORMATS = cast("Formats", "formats")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forker]:
    """A forker whose children say what they are, on the pipe for errors, and end."""

    def run(station: child.Station, formats: Formats) -> None:
        os.write(station.error_fd, b"%d %d " % (os.getppid(), station.uid) + str(formats).encode())
        os._exit(3)

    monkeypatch.setattr(child, "run", run)
    made = Forker(FORMATS)
    yield made
    made.close()


class Place:
    """What a station is made of."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.error_fd, self.error_write = os.pipe()
        self.station = child.Station(
            launcher_pid=os.getpid(),
            uid=1234,
            gid=1234,
            mount_namespace=self.error_fd,
            network_namespace=self.error_fd,
            order_fd=self.theirs.fileno(),
            error_fd=self.error_write,
            ahead=True,
        )

    def said(self) -> bytes:
        """To its end: nobody else holds the pipe."""
        os.close(self.error_write)
        said = b"".join(iter(lambda: os.read(self.error_fd, 100), b""))
        self.error_write = -1
        return said

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        for fd in (self.error_fd, self.error_write):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def reap_forker(asked: Forker) -> None:
    """It has ended or is about to."""
    pid = pid_of(asked)
    asked.close()
    os.waitpid(pid, 0)


def pid_of(asked: Forker) -> int:
    with open(f"/proc/self/fdinfo/{asked._pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def test_what_it_forks_is_the_askers_child_with_the_station_and_the_formats(asked: Forker, place: Place) -> None:
    pid = asked.fork(place.station, None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert place.said() == b"%d 1234 formats" % os.getpid()
    reap_forker(asked)


def test_one_forker_serves_all_and_keeps_nothing_of_them(asked: Forker, place: Place) -> None:
    children = [asked.fork(place.station, None) for _ in range(3)]
    for pid in children:
        os.waitpid(pid, 0)
    assert len(set(children)) == 3
    assert place.said().count(b"formats") == 3  # and the pipe has an end, though the forker lives
    assert len(os.listdir(f"/proc/{pid_of(asked)}/fd")) == 4
    reap_forker(asked)


def test_why_there_is_no_child_is_told(asked: Forker, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cgroup_fd: int | None) -> int:
        raise OSError(errno.EAGAIN if cgroup_fd is None else errno.EBUSY, "no")

    monkeypatch.setattr(clone, "fork_for_parent", refuse)
    for cgroup_fd, number in ((None, errno.EAGAIN), (place.error_fd, errno.EBUSY)):
        with pytest.raises(OSError, match=os.strerror(number)):
            asked.fork(place.station, cgroup_fd)
    reap_forker(asked)


def test_a_child_is_never_born_without_the_cgroup_that_did_not_arrive() -> None:
    with pytest.raises(OSError, match="no room") as caught:
        forker._fork(b"1 1234 1234 1 1", [0, 1, 2, 3], FORMATS)
    assert caught.value.errno == errno.EMFILE


def test_one_that_was_killed_is_told_and_made_again(asked: Forker, place: Place) -> None:
    os.waitpid(asked.fork(place.station, None), 0)
    dead = pid_of(asked)
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
    with pytest.raises(ConnectionError):
        asked.fork(place.station, None)
    os.waitpid(asked.fork(place.station, None), 0)
    reap_forker(asked)


def test_one_that_is_told_to_end_at_its_birth_does_not_end_the_asker(
    asked: Forker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the asker's wakeup then."""
    monkeypatch.setattr(gc, "freeze", lambda: os.kill(os.getpid(), signal.SIGTERM))
    read, write = os.pipe2(os.O_NONBLOCK)
    before = signal.signal(signal.SIGTERM, lambda *_: None), signal.set_wakeup_fd(write)
    try:
        asked.begin()
        pid = pid_of(asked)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.set_wakeup_fd(before[1])
        asked.close()
        os.close(read)
        os.close(write)


def test_one_that_hangs_is_ended(asked: Forker, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forker, "_LOOK_S", 0.001)
    monkeypatch.setattr(clone, "fork_for_parent", lambda cgroup_fd: signal.pause())
    asked.begin()
    hanging = pid_of(asked)
    with pytest.raises(TimeoutError, match="the process that forks for it hangs") as caught:
        asked.fork(place.station, None)
    assert caught.value.errno == errno.ETIMEDOUT
    assert os.WTERMSIG(os.waitpid(hanging, 0)[1]) == signal.SIGKILL


def test_one_that_hangs_and_the_next_are_waited_for_a_second_at_most() -> None:
    """In all: who asks serves nobody else meanwhile."""
    assert 2 * forker._LOOKS * forker._LOOK_S <= 1.0


def test_what_it_had_forked_before_it_hung_is_the_askers_and_ends_with_its_socket(
    asked: Forker, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork_and_hang(cgroup_fd: int | None) -> int:
        pid = fork(cgroup_fd)
        if pid:
            signal.pause()
        return pid

    def run(station: child.Station, formats: Formats) -> None:
        os.write(station.error_fd, b"%d" % os.getpid())
        os.read(station.order_fd, 1)
        os._exit(4)

    fork = clone.fork_for_parent
    monkeypatch.setattr(clone, "fork_for_parent", fork_and_hang)
    monkeypatch.setattr(child, "run", run)
    asked.begin()
    hanging = pid_of(asked)
    with pytest.raises(TimeoutError):
        asked.fork(place.station, None)
    assert os.WTERMSIG(os.waitpid(hanging, 0)[1]) == signal.SIGKILL
    place.ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(int(place.said()), 0)[1]) == 4


def test_one_that_was_stopped_is_not_waited_for(asked: Forker, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forker, "_LOOKS", sys.maxsize)
    os.waitpid(asked.fork(place.station, None), 0)
    stopped = pid_of(asked)
    os.kill(stopped, signal.SIGSTOP)
    os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
    with pytest.raises(TimeoutError):
        asked.fork(place.station, None)
    assert os.WTERMSIG(os.waitpid(stopped, 0)[1]) == signal.SIGKILL
    os.waitpid(asked.fork(place.station, None), 0)
    reap_forker(asked)


def test_one_that_was_killed_while_a_child_of_its_stands_still_is_told_at_once(
    asked: Forker, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that was frozen at its birth has the forker's end of the socket, which has no end therefore."""
    monkeypatch.setattr(child, "run", lambda station, formats: signal.pause())
    children = [asked.fork(place.station, None)]
    for reaped in (True, False):
        dead = pid_of(asked)
        os.kill(dead, signal.SIGKILL)
        os.waitid(os.P_PID, dead, os.WEXITED | (0 if reaped else os.WNOWAIT))
        with pytest.raises(ConnectionError):
            asked.fork(place.station, None)
        children.append(asked.fork(place.station, None))
        if not reaped:
            os.waitpid(dead, 0)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    reap_forker(asked)


def test_a_station_travels_without_its_descriptors_numbers(asked: Forker, place: Place) -> None:
    """What the asker calls 9 is another number there."""
    os.waitpid(asked.fork(place.station._replace(uid=77), None), 0)
    assert b" 77 " in place.said()
    reap_forker(asked)


def test_it_is_there_before_the_launcher_has_loaded_what_it_needs_itself() -> None:
    """What is loaded when it is made, every sandbox's exec unmaps."""
    loaded = "import coworkd.launcher.__main__, sys; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    assert {"msgspec", "coworkd.model.launch", "coworkd.launcher.server"}.isdisjoint(said)
    assert {"coworkd.launcher.child", "coworkd.launcher.forker"} <= set(said)
