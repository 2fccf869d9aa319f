from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from host_stub.vsock.memory import GuestError, GuestMemory
from host_stub.vsock.messages import FrontEndError, Region

PAGE = 4096


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.memfd_create("guest", os.MFD_CLOEXEC)
    os.pwrite(made, bytes(range(256)) * 64, 0)
    yield made
    os.close(made)


def test_addresses_of_both_worlds_lead_to_the_same_bytes(fd: int) -> None:
    memory = GuestMemory([Region(0x1000, PAGE, 0x9000, 0)], [fd])
    memory.view(0x1010, 4)[:] = b"word"
    assert bytes(memory.view_user(0x9010, 4)) == b"word"
    assert os.pread(fd, 4, 0x10) == b"word"
    memory.close()


def test_an_offset_need_not_lie_at_a_page(fd: int) -> None:
    memory = GuestMemory([Region(0, 100, 0, PAGE + 3)], [fd])
    assert bytes(memory.view(0, 2)) == bytes([3, 4])
    memory.close()


def test_a_buffer_goes_over_from_one_region_into_the_next(fd: int) -> None:
    memory = GuestMemory([Region(0, PAGE, 0, 0), Region(PAGE, PAGE, 1 << 40, 2 * PAGE)], [fd, fd])
    views: list[memoryview] = []
    memory.gather(PAGE - 2, 5, views)
    assert [bytes(view) for view in views] == [bytes([254, 255]), bytes([0, 1, 2])]
    with pytest.raises(GuestError):
        memory.view(PAGE - 2, 5)
    for view in views:
        view.release()
    memory.close()


@pytest.mark.parametrize(
    ("address", "length"), [(0, 1), (0x1000 + PAGE, 1), (0x1000, PAGE + 1), ((1 << 64) - 1, 2), (0xFFF, 2)]
)
def test_what_lies_outside_is_refused(fd: int, address: int, length: int) -> None:
    memory = GuestMemory([Region(0x1000, PAGE, 0x1000, 0)], [fd])
    with pytest.raises(GuestError, match="not in the guest's memory"):
        memory.view(address, length)
    with pytest.raises(GuestError, match="not in the guest's memory"):
        memory.view_user(address, length)
    with pytest.raises(GuestError, match="not in the guest's memory"):
        memory.gather(address, length, [])
    memory.close()


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        ([Region(0, 0, 0, 0)], "without bytes"),
        ([Region((1 << 64) - PAGE, PAGE + 1, 0, 0)], "the end of all addresses"),
        ([Region(0, PAGE, (1 << 64) - 1, 0)], "the end of all addresses"),
        ([Region(0, PAGE, 0, 0), Region(PAGE - 1, PAGE, 1 << 40, 0)], "overlap"),
        ([Region(0, PAGE, 0, 0), Region(1 << 40, PAGE, PAGE - 1, 0)], "overlap"),
        ([Region(0, 1 << 30, 0, 0)], "cannot be mapped"),
        ([Region(0, PAGE, 0, 1 << 30)], "cannot be mapped"),
        ([Region(0, 1 << 63, 0, 0)], "cannot be mapped"),
        ([Region(0, PAGE, 0, (1 << 63) + 5)], "cannot be mapped"),
    ],
)
def test_regions_that_make_no_sense_are_refused(fd: int, regions: list[Region], words: str) -> None:
    with pytest.raises(FrontEndError, match=words):
        GuestMemory(regions, [fd] * len(regions))


def test_a_descriptor_that_is_no_memory_is_refused() -> None:
    fd = os.eventfd(0)
    with pytest.raises(FrontEndError, match="cannot be mapped"):
        GuestMemory([Region(0, PAGE, 0, 0)], [fd])
    os.close(fd)


def test_each_region_needs_its_descriptor(fd: int) -> None:
    with pytest.raises(FrontEndError, match="1 regions of memory with 2 descriptors"):
        GuestMemory([Region(0, PAGE, 0, 0)], [fd, fd])
