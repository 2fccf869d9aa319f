"""The kernel's process event connector: every fork, exec and exit, told over netlink.

It is how the exact wait status of a process that is not our child is known, and the moment of its execve. It needs
CAP_NET_ADMIN in the first user namespace; a socket that overflows (ENOBUFS) has lost events and says so.
A socket filter lets through only FORK of a process (not of a thread), EXEC, and EXIT of a thread group's leader; or, while nobody is being
born, the EXIT of those alone who are asked for: everything that any process of the machine does would else wake us.
Wire: nlmsghdr (16 bytes), cn_msg (20 bytes), proc_event: what, cpu (u32), timestamp_ns (u64), then per event
FORK: parent_pid, parent_tgid, child_pid, child_tgid · EXEC: pid, tgid · EXIT: pid, tgid, exit_code, exit_signal (u32 each).
Sources: Documentation/driver-api/connector.rst, include/uapi/linux/cn_proc.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection
from typing import NamedTuple

FORK = 0x00000001
EXEC = 0x00000002
EXIT = 0x80000000

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = 1
_CN_VAL_PROC = 1
_PROC_CN_MCAST_LISTEN = 1
_NLMSG_DONE = 3
_SO_ATTACH_FILTER = 26
_HEADERS_BYTES = 16 + 20
_BODY = _HEADERS_BYTES + 16
_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024


class Fork(NamedTuple):
    """`parent` made the process `child`."""

    parent: int
    child: int


class Exec(NamedTuple):
    """`pid` replaced its image."""

    pid: int


class ExitStatus(NamedTuple):
    """`pid` ended with `status`, as wait(2) would tell it."""

    pid: int
    status: int


class Overflow(NamedTuple):
    """Events were lost."""


ProcEvent = Fork | Exec | ExitStatus | Overflow


class ProcConnector:
    """An open connector; `close` it. Raises `OSError` on opening where the kernel or the privilege is missing."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            _attach_filter(self._socket, _FILTER)
            self._socket.bind((os.getpid(), _CN_IDX_PROC))
            self._listen()
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[ProcEvent]:
        """Everything that is waiting, in order; empty when there is nothing."""
        events: list[ProcEvent] = []
        while True:
            try:
                data = self._socket.recv(1024)
            except BlockingIOError:
                return events
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                events.append(Overflow())  # the kernel dropped events for this socket
                continue
            event = parse_event(data)
            if event is not None:
                events.append(event)

    def hear_all(self) -> None:
        """From now on every fork, exec and exit, as at first. Raises `OSError`."""
        _attach_filter(self._socket, _FILTER)

    def hear_exits(self, pids: Collection[int]) -> None:
        """From now on only the exits of `pids`, or of everybody where they are more than `EXITS_LIMIT`. Raises `OSError`."""
        _attach_filter(self._socket, compose_exit_filter(pids))

    def _listen(self) -> None:
        operation = struct.pack("=I", _PROC_CN_MCAST_LISTEN)
        message = struct.pack("=IIIIHH", _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, len(operation), 0) + operation
        header = struct.pack("=IHHII", 16 + len(message), _NLMSG_DONE, 0, 0, os.getpid())
        self._socket.send(header + message)


def parse_event(data: bytes) -> ProcEvent | None:
    """One netlink message to an event; None for kinds that are not asked for."""
    if len(data) < _BODY + 8:
        return None
    (what,) = struct.unpack_from("=I", data, _HEADERS_BYTES)
    if what == FORK and len(data) >= _BODY + 16:
        _, parent, _, child = struct.unpack_from("=IIII", data, _BODY)
        return Fork(parent, child)
    if what == EXEC:
        return Exec(struct.unpack_from("=II", data, _BODY)[1])
    if what == EXIT and len(data) >= _BODY + 16:
        _, pid, status, _ = struct.unpack_from("=IIII", data, _BODY)
        return ExitStatus(pid, status)
    return None


Instruction = tuple[int, int, int, int]
"""Of classic BPF: code, jt, jf, k."""
EXITS_LIMIT = 64
_LD, _RET, _TAX, _JA, _JEQ, _JEQ_X = 0x20, 0x06, 0x07, 0x05, 0x15, 0x1D
_FILTER = (
    # A load turns the word to big-endian; the kernel wrote it in the machine's order, so the constants are turned.
    (_LD, 0, 0, _HEADERS_BYTES),
    (_JEQ, 10, 0, socket.htonl(EXEC)),
    (_JEQ, 5, 0, socket.htonl(FORK)),
    (_JEQ, 0, 9, socket.htonl(EXIT)),
    (_LD, 0, 0, _BODY),  # EXIT: pid and tgid
    (_TAX, 0, 0, 0),
    (_LD, 0, 0, _BODY + 4),
    (_JA, 0, 0, 3),
    (_LD, 0, 0, _BODY + 8),  # FORK: child_pid and child_tgid
    (_TAX, 0, 0, 0),
    (_LD, 0, 0, _BODY + 12),
    (_JEQ_X, 0, 1, 0),
    (_RET, 0, 0, 0xFFFF),
    (_RET, 0, 0, 0),
)


def compose_exit_filter(pids: Collection[int]) -> tuple[Instruction, ...]:
    """Lets the EXIT of `pids` through; of every thread group's leader where they are more than `EXITS_LIMIT`."""
    exits = ((_LD, 0, 0, _HEADERS_BYTES), (_JEQ, 1, 0, socket.htonl(EXIT)), (_RET, 0, 0, 0), (_LD, 0, 0, _BODY))
    if len(pids) > EXITS_LIMIT:
        leaders = ((_TAX, 0, 0, 0), (_LD, 0, 0, _BODY + 4), (_JEQ_X, 0, 1, 0), (_RET, 0, 0, 0xFFFF))
        return (*exits, *leaders, (_RET, 0, 0, 0))
    known = [each for pid in sorted(pids) for each in ((_JEQ, 0, 1, socket.htonl(pid)), (_RET, 0, 0, 0xFFFF))]
    return (*exits, *known, (_RET, 0, 0, 0))


def _attach_filter(connector: socket.socket, instructions: Collection[Instruction]) -> None:
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    code = ctypes.create_string_buffer(program, len(program))
    record = struct.pack("HL", len(instructions), ctypes.addressof(code))
    connector.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, record)
