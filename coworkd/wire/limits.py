"""How much a peer may send, and whose fault it was when the wire is not kept to.

Rules (the numbers of docs/protocol.md; a breach of any of them closes the link)
- One message from a host is at most 16 KiB until its `hello` was answered, 1 MiB from then on.
- One message from a guest is at most 4 MiB.
- Containers nest at most 32 deep (the message itself is the first level); an array or a map has at most 4,096 entries;
  one message has at most 65,536 values, keys counted.

The caps are on the bytes of *one* message, judged as soon as its header declares them, so neither a declared length of
4 GiB nor a slow drip makes the receiver keep more than the cap. Source: MessagePack specification, section Formats.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from coworkd.model.errors import Code, CoworkError

Role = Literal["host", "guest"]

PROTOCOL_VERSION = 1
UINT32_MAX = 0xFFFF_FFFF
HOST_FRAME_BYTES_FRESH = 16 * 1024
HOST_FRAME_BYTES = 1024 * 1024
GUEST_FRAME_BYTES = 4 * 1024 * 1024


class Limits(Struct, frozen=True, kw_only=True):
    """What one side accepts from the other. `fresh_frame_bytes` holds until `hello` was answered."""

    fresh_frame_bytes: int
    frame_bytes: int
    depth: int = 32
    items: int = 4096
    values: int = 65_536


FROM_HOST = Limits(fresh_frame_bytes=HOST_FRAME_BYTES_FRESH, frame_bytes=HOST_FRAME_BYTES)
FROM_GUEST = Limits(fresh_frame_bytes=GUEST_FRAME_BYTES, frame_bytes=GUEST_FRAME_BYTES)


class LocalProtocolError(CoworkError):
    """This side asked for something the wire cannot carry; nothing was sent and the connection is as it was.

    `details.rule` names the rule. Too large a message is `LocalLimitError`.
    """

    code = Code.INTERNAL

    def __init__(self, message: str, *, rule: str, **details: Any) -> None:
        super().__init__(message, rule=rule, **details)
        self.rule = rule


class LocalLimitError(LocalProtocolError):
    """What was to be sent is larger than the peer accepts."""

    code = Code.RESOURCE_EXHAUSTED


class RemoteProtocolError(CoworkError):
    """The peer broke the wire's rules; the connection is closed for good. `details.rule` names the rule."""

    code = Code.INVALID_ARGUMENT

    def __init__(self, message: str, *, rule: str, **details: Any) -> None:
        super().__init__(message, rule=rule, **details)
        self.rule = rule


class RemoteLimitError(RemoteProtocolError):
    """The peer sent, or declared, more than `Limits` allow."""

    code = Code.RESOURCE_EXHAUSTED
