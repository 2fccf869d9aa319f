"""The guest's memory, mapped: addresses of the guest or of its monitor → memoryviews, every one of them checked.

Rules
- A region is mapped as its descriptor gives it, shared and writable. Regions do not overlap, neither by the guest's addresses nor by the
  monitor's, are not empty and do not run over 2^64; else `FrontEndError`, and nothing stays mapped.
- An address and a length that do not lie in the memory raise `GuestError`. A buffer may go over from one region into the next.
- What is read may change while it is read: the guest runs. Whoever decides by what stands there copies it first, once.

`close` unmaps; views that were given must have been released before. A monitor that cuts its memory's file short ends this process by
SIGBUS, which is what ends a machine without memory anyway.

Source: QEMU docs/interop/vhost-user.rst, "Memory region description".
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Sequence

from host_stub.vsock.messages import FrontEndError, Region

_END = 1 << 64


class GuestError(Exception):
    """The guest's driver broke the rules of a virtqueue. The ring stops until the driver starts it anew."""


class GuestMemory:
    """Regions with their descriptors, which may be closed right after."""

    def __init__(self, regions: Sequence[Region], fds: Sequence[int]) -> None:
        if len(regions) != len(fds):
            raise FrontEndError(f"{len(regions)} regions of memory with {len(fds)} descriptors")
        _check(regions)
        self._maps: list[mmap.mmap] = []
        self._by_guest: list[tuple[int, int, memoryview]] = []
        self._by_user: list[tuple[int, int, memoryview]] = []
        try:
            for region, fd in zip(regions, fds, strict=True):
                view = self._map(region, fd)
                self._by_guest.append((region.guest_address, region.guest_address + region.size, view))
                self._by_user.append((region.user_address, region.user_address + region.size, view))
        except BaseException:
            self.close()
            raise
        # The largest first: nearly every buffer lies there.
        self._by_guest.sort(key=lambda row: row[0] - row[1])

    def _map(self, region: Region, fd: int) -> memoryview:
        start = region.offset - region.offset % mmap.ALLOCATIONGRANULARITY
        before = region.offset - start
        try:
            mapped = mmap.mmap(
                fd, before + region.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=start
            )
        except (OSError, ValueError, OverflowError) as error:
            raise FrontEndError(
                f"{region.size} bytes of memory at {region.offset} cannot be mapped: {error}"
            ) from error
        self._maps.append(mapped)
        with memoryview(mapped) as whole:
            return whole[before : before + region.size]

    def view(self, address: int, length: int) -> memoryview:
        """What the guest has at `address`, within one region."""
        return _find(self._by_guest, address, length)

    def view_user(self, address: int, length: int) -> memoryview:
        """What the monitor has at `address`, within one region."""
        return _find(self._by_user, address, length)

    def gather(self, address: int, length: int, into: list[memoryview]) -> None:
        """Append the views of a buffer: one, or more where it goes over from one region into the next."""
        while length > 0:
            for start, end, view in self._by_guest:
                if start <= address < end:
                    fits = min(length, end - address)
                    into.append(view[address - start : address - start + fits])
                    break
            else:
                raise GuestError(f"a buffer of {length} bytes at {address:#x} is not in the guest's memory")
            address += fits
            length -= fits

    def close(self) -> None:
        """Unmap everything."""
        for _, _, view in self._by_guest:
            view.release()
        self._by_guest.clear()
        self._by_user.clear()
        while self._maps:
            self._maps.pop().close()


def _find(rows: list[tuple[int, int, memoryview]], address: int, length: int) -> memoryview:
    for start, end, view in rows:
        if start <= address and address + length <= end:
            return view[address - start : address - start + length]
    raise GuestError(f"{length} bytes at {address:#x} are not in the guest's memory")


def _check(regions: Sequence[Region]) -> None:
    for region in regions:
        if not region.size:
            raise FrontEndError("a region of memory without bytes")
        if max(region.guest_address, region.user_address, region.offset) + region.size > _END:
            raise FrontEndError("a region of memory that runs over the end of all addresses")
    for starts in ([r.guest_address for r in regions], [r.user_address for r in regions]):
        spans = sorted((start, start + region.size) for start, region in zip(starts, regions, strict=True))
        if any(end > following for (_, end), (following, _) in itertools.pairwise(spans)):
            raise FrontEndError("regions of memory overlap")
