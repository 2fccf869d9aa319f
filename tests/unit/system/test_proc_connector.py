from __future__ import annotations

import errno
import socket
import struct

import pytest

from coworkd.system import proc_connector
from coworkd.system.proc_connector import (
    Exec,
    ExitStatus,
    Fork,
    Overflow,
    ProcConnector,
    compose_exit_filter,
    parse_event,
)

PROC_EVENT_COMM = 0x200


def message(what: int, *words: int) -> bytes:
    """nlmsghdr, cn_msg, then the event, as the kernel lays them out."""
    event = struct.pack("=IIQ", what, 0, 1) + struct.pack(f"={len(words)}I", *words)
    return bytes(16) + bytes(20) + event


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (message(proc_connector.FORK, 10, 11, 20, 21), Fork(parent=11, child=21)),
        (message(proc_connector.EXEC, 20, 21), Exec(pid=21)),
        (message(proc_connector.EXIT, 20, 21, 256, 17), ExitStatus(pid=21, status=256)),
        (message(PROC_EVENT_COMM, 20, 21, 0, 0), None),
        (message(proc_connector.FORK, 10, 11), None),
        (message(proc_connector.EXIT, 20, 21), None),
        (message(proc_connector.EXEC, 20), None),
        (b"", None),
    ],
)
def test_parse_event(data: bytes, event: object) -> None:
    assert parse_event(data) == event


def connector(monkeypatch: pytest.MonkeyPatch, *received: bytes | OSError) -> ProcConnector:
    """One whose socket gives `received` in turn, then nothing."""

    class Socket:
        def __init__(self) -> None:
            self.waiting = [*received, BlockingIOError()]

        def recv(self, limit: int) -> bytes:
            found = self.waiting.pop(0)
            if isinstance(found, OSError):
                raise found
            return found

    made = ProcConnector.__new__(ProcConnector)
    monkeypatch.setattr(made, "_socket", Socket(), raising=False)
    return made


def test_read_takes_everything_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = connector(
        monkeypatch,
        message(proc_connector.FORK, 1, 1, 2, 2),
        message(PROC_EVENT_COMM, 2, 2, 0, 0),
        message(proc_connector.EXEC, 2, 2),
    )
    assert opened.read() == [Fork(1, 2), Exec(2)]


def test_read_says_what_the_kernel_dropped_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = connector(monkeypatch, OSError(errno.ENOBUFS, "lost"), message(proc_connector.EXEC, 2, 2))
    assert opened.read() == [Overflow(), Exec(2)]


def test_read_does_not_spin_on_another_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="bad"):
        connector(monkeypatch, OSError(errno.EBADF, "bad")).read()


def test_opening_that_fails_closes_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(socket, "socket", lambda *words: ours)
    with theirs:
        with pytest.raises(TypeError):  # a unix socket binds to no pair of numbers
            ProcConnector()
        assert ours.fileno() == -1


def run_filter(data: bytes) -> bool:
    """The classic BPF program, as the kernel runs it: loads are big-endian words."""
    accumulator = index = position = 0
    program = proc_connector._FILTER
    while True:
        code, yes, no, value = program[position]
        position += 1
        if code == proc_connector._LD:
            (accumulator,) = struct.unpack_from(">I", data, value)
        elif code == proc_connector._TAX:
            index = accumulator
        elif code == proc_connector._JA:
            position += value
        elif code == proc_connector._JEQ:
            position += yes if accumulator == value else no
        elif code == proc_connector._JEQ_X:
            position += yes if accumulator == index else no
        else:
            return bool(value)


@pytest.mark.parametrize(
    ("data", "passed"),
    [
        (message(proc_connector.FORK, 10, 11, 20, 20), True),
        (message(proc_connector.FORK, 10, 11, 21, 20), False),  # a thread
        (message(proc_connector.EXEC, 20, 21), True),
        (message(proc_connector.EXIT, 20, 20, 0, 17), True),
        (message(proc_connector.EXIT, 21, 20, 0, 17), False),  # a thread
        (message(PROC_EVENT_COMM, 20, 20, 0, 0), False),
    ],
)
def test_the_socket_filter_lets_processes_through_and_no_threads(data: bytes, passed: bool) -> None:
    assert run_filter(data) is passed


def heard(pids: range, *messages: bytes) -> list[bool]:
    """Which of the messages the filter lets through, by the kernel's judgement."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    passed = []
    with ours, theirs:
        ours.setblocking(False)
        proc_connector._attach_filter(ours, compose_exit_filter(pids))
        for each in messages:
            theirs.send(each)
            try:
                passed.append(ours.recv(1024) == each)
            except BlockingIOError:
                passed.append(False)
    return passed


@pytest.mark.parametrize(
    ("pids", "passed"),
    [
        (range(20, 22), [True, False, False, False]),
        (range(20, 20 + proc_connector.EXITS_LIMIT), [True, True, False, False]),
        (range(1000, 1001 + proc_connector.EXITS_LIMIT), [True, True, False, False]),
        (range(0), [False, False, False, False]),
    ],
)
def test_only_the_exits_of_those_asked_for_are_heard(pids: range, passed: list[bool]) -> None:
    asked = message(proc_connector.EXIT, 20, 20, 0, 17)
    another = message(proc_connector.EXIT, 70, 70, 0, 17)
    born = message(proc_connector.FORK, 20, 20, 21, 21)
    assert heard(pids, asked, another, born, message(proc_connector.EXEC, 20, 20)) == passed
