"""A vsock packet's header: 44 bytes ↔ `Header`.

    u64 src_cid · u64 dst_cid · u32 src_port · u32 dst_port · u32 len · u16 type · u16 op · u32 flags · u32 buf_alloc · u32 fwd_cnt

All little-endian. Any 44 bytes are a header; what it says is judged by `connections`. Source: virtio 1.2, 5.10.6.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

SIZE = 44
_HEADER = struct.Struct("<QQIIIHHIII")
pack_into = _HEADER.pack_into

STREAM = 1
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)
RECEIVES_NO_MORE, SENDS_NO_MORE, DONE = 1, 2, 3
TRANSPORT_RESET = struct.pack("<I", 0)
"""The one event of the event queue: all connections are gone, and the CID may be another."""


class Header(NamedTuple):
    """See the layout above. `flags` are SHUTDOWN's."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    type: int
    op: int
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0


def parse_header(views: Sequence[memoryview]) -> tuple[Header, list[memoryview]] | None:
    """A chain's header, and the views of what follows it; None if there are fewer than 44 bytes."""
    if views and len(views[0]) == SIZE:
        return Header._make(_HEADER.unpack(views[0])), list(views[1:])
    head, rest = split(views, SIZE)
    data = b"".join(head)
    return (Header._make(_HEADER.unpack(data)), rest) if len(data) == SIZE else None


def compose_header(header: Header) -> bytes:
    """The header's 44 bytes."""
    return _HEADER.pack(*header)


def split(views: Sequence[memoryview], size: int) -> tuple[list[memoryview], list[memoryview]]:
    """The first `size` bytes of `views`, and the rest."""
    head: list[memoryview] = []
    for at, view in enumerate(views):
        if size < len(view):
            if size:
                head.append(view[:size])
            return head, [view[size:], *views[at + 1 :]]
        head.append(view)
        size -= len(view)
    return head, []


def write_header(views: Sequence[memoryview], header: Header) -> None:
    """Put a header at the begin of a chain with room for it."""
    if len(views[0]) >= SIZE:
        _HEADER.pack_into(views[0], 0, *header)
        return
    data = _HEADER.pack(*header)
    at = 0
    for view in split(views, SIZE)[0]:
        view[:] = data[at : at + len(view)]
        at += len(view)
