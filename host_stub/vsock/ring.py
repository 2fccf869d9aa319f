"""A split virtqueue, from the device's side: what the driver offers → chains of views, what was used → back.

Rules
- The guest is not trusted: indices past the table, a chain longer than the queue (so every loop), an available index that jumps by more
  than the queue's size, an indirect table of a crooked length or within another, buffers of the wrong direction: `GuestError`.
- Every field is read once: an index first, then, behind a fence, what it makes valid. Indices are read and written as whole 16-bit words.
- `take` hands chains out in order; `give_back` undoes the last ones while nothing of them was put back. What `put` has put back becomes the
  guest's with `publish`, which tells whether the driver wants to be called.
- `listen` asks for a kick at the next chain and tells whether one came meanwhile; until then kicks are not asked for.

Memory ordering: virtio wants the used index written after what it makes valid, and a full barrier between "asking for a kick" and
"looking once more". Python has no barrier by name; a lock taken and let go twice is one: the first release is ordered after all stores,
the second acquire before all loads, and a release before a later acquire (x86: locked instructions; Armv8: stlr and ldar, or their kin).

Sources: virtio 1.2, 2.7 "Split Virtqueues", 2.7.5.3 indirect, 2.7.7 and 2.7.10 notification suppression.
"""

from __future__ import annotations

import struct
import threading
from typing import NamedTuple

from host_stub.vsock.memory import GuestError, GuestMemory
from host_stub.vsock.messages import VringAddresses

NEXT, WRITE, INDIRECT = 1, 2, 4
SIZE_LIMIT = 1 << 15
_DESCRIPTOR = struct.Struct("=QIHH")
_NO_INTERRUPT = _NO_NOTIFY = 1
_MOD = 0xFFFF
_lock = threading.Lock()


def fence() -> None:
    """A full memory barrier; see the module's words on ordering."""
    with _lock:
        pass
    with _lock:
        pass


class Chain(NamedTuple):
    """What a driver made available at once."""

    head: int
    views: list[memoryview]


class Ring:
    """One started queue. `base` is where it goes on; views are held until `close`."""

    def __init__(
        self,
        memory: GuestMemory,
        where: VringAddresses,
        *,
        size: int,
        base: int,
        event_idx: bool,
        indirect: bool,
        writable: bool,
    ) -> None:
        if not 0 < size <= SIZE_LIMIT or size & (size - 1):
            raise GuestError(f"a queue of {size} entries: a power of two up to {SIZE_LIMIT} is needed")
        if where.descriptors % 16 or where.available % 2 or where.used % 4:
            raise GuestError("a queue that is not aligned")
        self._memory, self._size, self._mask = memory, size, size - 1
        self._event_idx, self._indirect, self._write = event_idx, indirect, WRITE if writable else 0
        tail = 2 if event_idx else 0
        self._descriptors = memory.view_user(where.descriptors, 16 * size)
        available = memory.view_user(where.available, 4 + 2 * size + tail)
        used = memory.view_user(where.used, 4 + 8 * size + tail)
        self._available = available.cast("H")
        self._used = used.cast("H")
        self._elements = used[4 : 4 + 8 * size].cast("I")
        self._seen = self._next = base & _MOD
        self._put = self._told = self._used[1]
        self._call_owed = False

    # -- what the driver offers --------------------------------------------------------------------------------------

    @property
    def base(self) -> int:
        """The available index of the first chain that was not taken."""
        return self._next

    def take(self) -> Chain | None:
        """The next chain, or None if the driver has offered no more."""
        at = self._next
        if at == self._seen and not self._look():
            return None
        head = self._available[2 + (at & self._mask)]
        chain = Chain(head, self._walk(head))
        self._next = (at + 1) & _MOD
        return chain

    def give_back(self, count: int) -> None:
        """The last `count` chains taken were not used; they will be taken again."""
        self._next = (self._next - count) & _MOD

    def listen(self) -> bool:
        """Ask for a kick at the next chain; True if there is one already, and a kick may not come."""
        if self._event_idx:
            self._used[2 + 4 * self._size] = self._next
        else:
            self._used[0] = 0
        fence()
        return self._look()

    def ignore(self) -> None:
        """No kicks are needed while chains are looked for anyway."""
        if not self._event_idx:
            self._used[0] = _NO_NOTIFY

    def _look(self) -> bool:
        self._seen = seen = self._available[1]
        offered = (seen - self._next) & _MOD
        if offered > self._size:
            raise GuestError(f"the available index jumped by {offered} in a queue of {self._size}")
        fence()
        return offered > 0

    def _walk(self, head: int) -> list[memoryview]:
        table, count, left, index = self._descriptors, self._size, self._size, head
        views: list[memoryview] = []
        while True:
            if index >= count:
                raise GuestError(f"descriptor {index} of a table of {count}")
            address, length, flags, following = _DESCRIPTOR.unpack_from(table, 16 * index)
            if flags & INDIRECT:
                table, count, left, index = self._open_indirect(table, address, length, flags)
                continue
            if flags & WRITE != self._write:
                raise GuestError("a buffer of the wrong direction")
            if length:
                self._memory.gather(address, length, views)
            if not flags & NEXT:
                return views
            left -= 1
            if left <= 0:
                raise GuestError("a chain longer than its queue")
            index = following

    def _open_indirect(
        self, table: memoryview, address: int, length: int, flags: int
    ) -> tuple[memoryview, int, int, int]:
        if not self._indirect or table is not self._descriptors or flags & NEXT:
            raise GuestError("an indirect table where none may be")
        count, crooked = divmod(length, 16)
        if crooked or not 0 < count <= self._size:
            raise GuestError(f"an indirect table of {length} bytes")
        return self._memory.view(address, length), count, count, 0

    # -- what was used -----------------------------------------------------------------------------------------------

    def put(self, head: int, written: int) -> None:
        """Give a chain back, `written` bytes of it filled; the guest sees it after `publish`."""
        at = 2 * (self._put & self._mask)
        self._elements[at] = head
        self._elements[at + 1] = written
        self._put = (self._put + 1) & _MOD

    def publish(self) -> bool:
        """Let the guest see what was put; whether it wants to be called for it."""
        old, new = self._told, self._put
        if old == new:
            return False
        fence()
        self._used[1] = new
        self._told = new
        fence()
        if self._event_idx:
            wanted = self._available[2 + self._size]
            return ((new - wanted - 1) & _MOD) < ((new - old) & _MOD)
        return not self._available[0] & _NO_INTERRUPT

    def close(self) -> None:
        """Release the views."""
        for view in (self._available, self._used, self._elements, self._descriptors):
            view.release()
