"""The builder's answer and its ends, with a child that answers as the test says; tests/root/test_launcher.py builds for real."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec
import pytest

from coworkd.launcher import session as room
from coworkd.launcher.listeners import Listeners
from coworkd.launcher.session import Builder, BuildReport
from coworkd.launcher.tree import TreeSocket
from tests.unit.launcher.launcher_room import OPEN, open_fds


class FakeListeners(Listeners):
    """One descriptor instead of four sockets; `refuse` is what comes of the ports."""

    def __init__(self) -> None:
        self.fds = [os.memfd_create("listener")]
        self.to_place = (TreeSocket(fd=self.fds[0], path=b"/tmp/inside", uid=1001, gid=1001, backlog=1),)
        self.refuse: OSError | None = None

    def open_ports(self, network_namespace: int) -> None:
        assert os.readlink(f"/proc/self/fd/{network_namespace}").startswith("net:")
        if self.refuse is not None:
            raise self.refuse

    def take(self) -> tuple[int, ...]:
        taken, self.fds = tuple(self.fds), []
        return taken

    def close(self) -> None:
        for fd in self.take():
            os.close(fd)


def builder(monkeypatch: pytest.MonkeyPatch, answer: bytes | None, listeners: Listeners | None = None) -> Builder:
    """A builder whose child gives `answer` and waits to be let go; None: it dies without one."""

    def build(request: object, base: bytes, listeners: object, report_fd: int, hold_fd: int) -> None:
        if answer is not None:
            os.write(report_fd, answer)
            os.read(hold_fd, 1)
        os._exit(0)

    monkeypatch.setattr(room, "_build", build)
    return Builder(OPEN, b"/nowhere", listeners or FakeListeners())


def reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


def test_a_good_answer_gives_both_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    report = BuildReport(missing=(b"/sessions/bob/mnt/a",), unmapped=(b"/sessions/bob/mnt/b",))
    made = builder(monkeypatch, msgspec.msgpack.encode(report))
    session, told = made.finish()
    assert session is not None
    assert told == report
    assert (session.name, session.uid, session.gid) == ("bob", 1001, 1001)
    assert session.missing == ("/sessions/bob/mnt/a",)
    assert session.degraded == ("/sessions/bob/mnt/b keeps its owner: no idmapped mounts there",)
    for fd, kind in ((session.mount_namespace, "mnt"), (session.network_namespace, "net")):
        assert os.readlink(f"/proc/self/fd/{fd}") == os.readlink(f"/proc/self/ns/{kind}")
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in session.listeners] == ["/memfd:listener (deleted)"]
    session.close()
    assert reaped(made.pid) == 0


def test_ports_that_cannot_be_had_refuse_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    listeners = FakeListeners()
    listeners.refuse = OSError(98, "Address already in use")
    made = builder(monkeypatch, msgspec.msgpack.encode(BuildReport()), listeners)
    session, report = made.finish()
    assert session is None
    assert (report.error_stage, report.errno) == ("namespaces", 98)
    assert reaped(made.pid) == 0


def test_a_builder_that_cannot_be_forked_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(11, "no")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OSError, match="no"):
        Builder(OPEN, b"/nowhere", FakeListeners())


@pytest.mark.parametrize(
    ("answer", "stage"),
    [
        (msgspec.msgpack.encode(BuildReport(error_stage="bind /srv", errno=2, message="no")), "bind /srv"),
        (None, "builder"),
        (b"\xc1 junk", "builder"),
        (msgspec.msgpack.encode({"errno": "two"}), "builder"),
        (b"\x81\xa7message\xa1\xff", "builder"),
    ],
)
def test_a_bad_answer_is_a_refusal(monkeypatch: pytest.MonkeyPatch, answer: bytes | None, stage: str) -> None:
    made = builder(monkeypatch, answer)
    session, report = made.finish()
    assert session is None
    assert report.error_stage == stage
    assert report.message
    assert reaped(made.pid) == 0


def test_an_answer_of_one_that_is_gone_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = builder(monkeypatch, msgspec.msgpack.encode(BuildReport()))
    assert os.read(made.fileno(), 1)
    os.kill(made.pid, 9)
    reaped(made.pid)
    session, report = made.finish()
    assert session is None
    assert report.error_stage is not None


def test_an_abandoned_builder_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = builder(monkeypatch, b"waits")
    made.abandon()
    assert reaped(made.pid) == -9


def test_a_build_that_fails_answers_within_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real builder without root: it cannot make namespaces, or its request's source is absurdly long."""
    from msgspec import structs

    from coworkd.model.launch import TreeBind

    absurd = TreeBind(source=b"/" + b"x" * 2_000_000, path=b"/a", read_only=True)
    made = Builder(structs.replace(OPEN, tree=(absurd,)), b"/nowhere", FakeListeners())
    session, report = made.finish()
    assert session is None
    assert report.error_stage is not None
    assert report.error_stage.startswith("bind /xxx")
    assert len(report.error_stage) + len(report.message) < 10_000
    assert reaped(made.pid) == 0
