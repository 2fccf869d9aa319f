"""The order to a waiting child: what it is to become, as words with a NUL between, which no word of a command can have in it.

Standard library alone: the child that reads it has loaded nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

ORDER_LIMIT_BYTES = 32 * 1024
"""A longer order travels in a memfd, which is then the last descriptor; the message is one zero byte."""


class Order(NamedTuple):
    """What to become."""

    executable: bytes
    command: bytes
    """What bubblewrap will execute, looked at first, see `formats`; empty where that is the shim, which looks itself."""
    cwd: bytes
    search_path: bytes
    rlimits: tuple[tuple[int, int], ...]
    """Resource and value, see getrlimit(2); they are only ever lowered."""
    argv: tuple[bytes, ...]


def encode_order(order: Order) -> bytes:
    rlimits = b" ".join(b"%d:%d" % pair for pair in order.rlimits)
    return b"\0".join((order.executable, order.command, order.cwd, order.search_path, rlimits, *order.argv))


def decode_order(message: bytes) -> Order:
    executable, command, cwd, search_path, rlimits, *argv = message.split(b"\0")
    pairs = (word.split(b":") for word in rlimits.split())
    return Order(
        executable=executable,
        command=command,
        cwd=cwd,
        search_path=search_path,
        rlimits=tuple((int(number), int(value)) for number, value in pairs),
        argv=tuple(argv),
    )
