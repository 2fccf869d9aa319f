"""Finding where one MessagePack message ends, without building anything from it.

A decoder that reserves what a header declares can be made to reserve 32 KiB by three bytes, once per nesting level. So
a message is measured first, and decoded only when all of it is there and every cap of `Limits` holds.

Rules
- Each value is looked at once, however the bytes are cut: the scan goes on where it stopped.
- A breach is told at the first byte that proves it: the first byte of a message must begin an array of 3 or 4.
- Extension types (0xc7-0xc9, 0xd4-0xd8, timestamps with them) and the never-used byte 0xc1 are refused.

A usual value is looked at without calling anything: every byte of control in both directions comes through here.

Not here: what the values mean, UTF-8, the keys of maps. Source: MessagePack specification, section Formats.
"""

from __future__ import annotations

from typing import NoReturn

from coworkd.wire.limits import Limits, RemoteLimitError, RemoteProtocolError

_FIRST = frozenset([0x93, 0x94, 0xDC, 0xDD])
_ARRAYS = 0xDC
"""Of the tags that a length follows, those from here on are arrays and maps."""


def _fixed_sizes() -> tuple[int, ...]:
    """Tag → bytes of the whole value where the tag alone says it (containers: their header), else 0."""
    sizes = [0] * 256
    for tag in (*range(0xA0), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)):
        sizes[tag] = 1
    for tag in range(0xA0, 0xC0):
        sizes[tag] = 1 + (tag & 0x1F)
    sizes[0xCA], sizes[0xCB] = 5, 9
    for index, size in enumerate((2, 3, 5, 9)):
        sizes[0xCC + index] = sizes[0xD0 + index] = size
    return tuple(sizes)


_FIXED_SIZE = _fixed_sizes()
_CHILDREN = tuple((tag & 0x0F) * (2 if tag < 0x90 else 1) if 0x80 <= tag < 0xA0 else 0 for tag in range(256))
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


class FrameScanner:
    """Measures one message at a time. After an error it must not be used again."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.frame_bytes = limits.fresh_frame_bytes
        self.missing_bytes = 1
        """After a scan that found no end: at least so many bytes of the message are still to come."""
        self._wanted = [0] * (limits.depth + 1)
        """How many values each open container still wants; the first is the one message."""
        self.reset()

    def reset(self) -> None:
        """Be ready for the next message."""
        self._scanned = 0
        self._values = 0
        self._depth = 0
        self._wanted[0] = 1

    def scan(self, buffer: bytes | bytearray, start: int) -> int | None:
        """Return the offset just past the message that begins at `start`, or None if more bytes are needed.

        `buffer[start:]` must be what it was at the last call, with more at its end. Raises `RemoteProtocolError`
        (`RemoteLimitError` for a cap).
        """
        position = start + self._scanned
        available = len(buffer)
        wanted, depth, deepest = self._wanted, self._depth, self._limits.depth
        values = self._values
        last_byte = start + self.frame_bytes
        missing = 1
        while depth >= 0 and position < available:
            tag = buffer[position]
            if position == start and tag not in _FIRST:
                raise _not_a_message(tag)
            size = _FIXED_SIZE[tag]
            children = _CHILDREN[tag]
            if not size:
                header = 1 + (_LENGTH_BYTES[tag] if tag in _LENGTH_BYTES else _refuse(tag))
                if position + header > available:
                    missing = position + header - available
                    break
                length = int.from_bytes(buffer[position + 1 : position + header], "big")
                size, children = (header + length, 0) if tag < _ARRAYS else (header, self._children(tag, length))
                if position == start and children not in (3, 4):
                    raise _not_a_message(tag)
            if position + size > last_byte:
                raise RemoteLimitError(
                    f"a message is larger than the {self.frame_bytes} bytes allowed; split it",
                    rule="frame-bytes",
                    limit=self.frame_bytes,
                )
            if position + size > available:
                missing = position + size - available
                break
            position += size
            values += 1
            wanted[depth] -= 1
            if children:
                if depth >= deepest or values + children > self._limits.values:
                    raise self._too_much(depth)
                depth += 1
                wanted[depth] = children
            while depth >= 0 and not wanted[depth]:
                depth -= 1
        self._scanned = position - start
        self._values, self._depth = values, depth
        self.missing_bytes = missing
        return position if depth < 0 else None

    def _children(self, tag: int, length: int) -> int:
        """How many values stand in an array or map of `length` entries."""
        if length > self._limits.items:
            raise RemoteLimitError(
                f"an array or map of {length} entries has more than the {self._limits.items} allowed", rule="items"
            )
        return length if tag < 0xDE else 2 * length

    def _too_much(self, depth: int) -> RemoteLimitError:
        if depth >= self._limits.depth:
            return RemoteLimitError(
                f"containers nest deeper than the {self._limits.depth} levels allowed", rule="depth"
            )
        return RemoteLimitError(f"a message has more than the {self._limits.values} values allowed", rule="values")


def _refuse(tag: int) -> NoReturn:
    if tag == 0xC1:
        raise RemoteProtocolError("byte 0xc1 is never used in MessagePack", rule="format")
    raise RemoteProtocolError(
        f"extension type 0x{tag:02x} is not used on this wire (timestamps are floats)", rule="extension"
    )


def _not_a_message(tag: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"a message begins with byte 0x{tag:02x}: expected a MessagePack-RPC array of 3 or 4 values",
        rule="message-shape",
    )
