"""How both ends of a virtio-serial port find a common beginning, without I/O.

The port is one byte stream without connections: after either end restarts, halves of old messages are still in it. The
byte 0xC1 begins no MessagePack value, so it marks the beginning:

    host  → C1 nonce[16]         random, none a C1, new for each link; sent again each second until it is answered
    guest → C1 nonce[16]         the same bytes; now both are at the beginning, and the host says hello

Rules
- Before the mark the guest discards all input; after it answered, the next byte must begin a message (0x94, 0xDC, 0xDD)
  or another mark, which is answered anew; anything else was an old half, and it discards again.
- A guest with half of an old mark before it takes the first bytes of the next for the rest of that, and looks for a C1 again: with none
  in a nonce, the one that it finds begins the mark that follows.
- The host discards all input up to the mark *with its own nonce*; further copies of that answer, directly behind it,
  are answers to repeated marks and are skipped.
- Any cutting of the same bytes gives the same bytes and answers. At most 17 bytes are kept.

Source: docs/protocol.md E-5; virtio specification, Console Device.
"""

from __future__ import annotations

MARK = 0xC1
NONCE_BYTES = 16
_FIRST_OF_MESSAGE = frozenset([0x94, 0xDC, 0xDD])


class GuestResync:
    """The guest's end. Feed everything read from the port through `feed` for as long as the link lasts."""

    def __init__(self) -> None:
        self.synced = False
        self._answered = False
        self._nonce: bytearray | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what to send at once, and what belongs to the link."""
        answers = b""
        position = 0
        while not self.synced and position < len(data):
            if self._nonce is not None:
                taken = data[position : position + NONCE_BYTES - len(self._nonce)]
                self._nonce += taken
                position += len(taken)
                if len(self._nonce) == NONCE_BYTES:
                    answers += bytes([MARK]) + self._nonce
                    self._nonce, self._answered = None, True
            elif data[position] == MARK:
                self._nonce = bytearray()
                position += 1
            elif self._answered and data[position] in _FIRST_OF_MESSAGE:
                self.synced = True
            else:
                self._answered = False
                mark = data.find(MARK, position)
                position = len(data) if mark < 0 else mark
        return answers, data[position:] if self.synced else b""


class HostResync:
    """The host's end. Send `mark`, and again each second while `synced` is false; feed everything that is read."""

    def __init__(self, random: bytes) -> None:
        """`random` becomes the nonce; a mark in it becomes a 0, so that nobody takes the middle of this mark for the beginning of one."""
        if len(random) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, got {len(random)}")
        mark = bytes([MARK])
        self.mark = mark + random.replace(mark, b"\0")
        self.synced = False
        self._begun = False
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """Return what belongs to the link."""
        if self._begun:
            return data
        data = self._kept + data
        self._kept = b""
        if not self.synced:
            found = data.find(self.mark)
            if found < 0:
                self._kept = data[-(len(self.mark) - 1) :]
                return b""
            self.synced = True
            data = data[found + len(self.mark) :]
        while data.startswith(self.mark):
            data = data[len(self.mark) :]
        if self.mark.startswith(data):
            self._kept = data
            return b""
        self._begun = True
        return data
