"""One SOCK_SEQPACKET message with descriptors: the unit in which coworkd and its launcher talk.

Rules: a message over `INLINE_LIMIT_BYTES` travels in a memfd, as one zero byte with that memfd as first descriptor
(a packet over about 208,000 bytes is EMSGSIZE); at most 253 descriptors go with a message (unix(7), SCM_MAX_FD); a truncated
message, and one in a file that is no memory, is a broken peer, its descriptors are closed; one whose descriptors found no room here is told
apart from it. Whoever receives owns every descriptor.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Iterable

from coworkd.model.errors import UNDECODABLE as UNDECODABLE
from coworkd.model.launch import INLINE_LIMIT_BYTES, MESSAGE_LIMIT_BYTES

FD_LIMIT = 64
"""The most descriptors any message of ours carries; the kernel's own bound is 253."""
_ANCILLARY_BYTES = socket.CMSG_SPACE(FD_LIMIT * 4)
RECEIVE_ARGUMENTS = (INLINE_LIMIT_BYTES + 1, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
"""Arguments for `recvmsg`, sync or trio."""
_CUT, _ANCILLARY_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC), int(socket.MSG_CTRUNC)
"""As plain integers: each operation on the socket module's is ten calls of the enum module."""


Ancillary = list[tuple[int, int, "array.array[int]"]]
"""What `sendmsg` takes as ancillary data."""


class BrokenPacket(Exception):
    """The peer sent what no peer of ours sends; the connection is to be closed."""


class OutOfDescriptors(BrokenPacket):
    """The message is whole, but this program had no descriptor left for what came with it, all of which is closed.

    Who can say so to the peer goes on with the conversation.
    """

    def __init__(self, message: bytes) -> None:
        super().__init__("no descriptor was left for what came with a message")
        self.message = message


def pack(message: bytes, fds: Iterable[int] = ()) -> tuple[list[bytes], Ancillary, int]:
    """Arguments for `sendmsg`, and a memfd to close after sending (-1 where none was needed)."""
    carried = list(fds)
    memfd = -1
    if len(message) > INLINE_LIMIT_BYTES:
        memfd = os.memfd_create("coworkd-message", os.MFD_CLOEXEC)
        remaining = memoryview(message)
        while remaining:
            remaining = remaining[os.write(memfd, remaining) :]
        carried.insert(0, memfd)
        message = b"\x00"
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", carried))] if carried else []
    return [message], ancillary, memfd


def unpack(data: bytes, ancillary: list[tuple[int, int, bytes]], flags: int) -> tuple[bytes, list[int]]:
    """The message and its descriptors, which the caller now owns; raises `BrokenPacket` with all of them closed."""
    fds = _descriptors(ancillary)
    try:
        # The kernel cuts off what does not fit into our buffer, and what this program has no number for (EMFILE): unix(7).
        cut = flags & _CUT
        if cut == _ANCILLARY_CUT and len(fds) < FD_LIMIT and data != b"\x00":
            raise OutOfDescriptors(data)
        if cut:
            raise BrokenPacket("a message was longer than any of ours, or carried more descriptors")
        if data == b"\x00":
            if not fds:
                raise BrokenPacket("a long message came without its memfd")
            data = _read_memfd(fds[0])
            os.close(fds.pop(0))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return data, fds


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    if not ancillary:
        return []
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _read_memfd(fd: int) -> bytes:
    try:
        # Only files in memory have seals; any other might be one that its peer, or a share that hangs, makes us wait for.
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise BrokenPacket("a long message came in a file that is no memory") from error
    size = os.fstat(fd).st_size
    if size > MESSAGE_LIMIT_BYTES:
        raise BrokenPacket(f"a message of {size} bytes is over the bound of {MESSAGE_LIMIT_BYTES}")
    return os.pread(fd, size, 0)
