"""Which bits of an argument count."""

from __future__ import annotations

import pytest

from coworkd.seccomp.argument_widths import _table, argument_mask
from coworkd.seccomp.numbers import exists_elsewhere
from coworkd.seccomp.rules import INT_MASK, LONG_MASK


@pytest.mark.parametrize(
    ("call", "index", "mask"),
    [("socket", 0, INT_MASK), ("socket", 2, INT_MASK), ("ioctl", 1, INT_MASK), ("ioctl", 2, LONG_MASK),
     ("personality", 0, INT_MASK), ("clone", 0, INT_MASK), ("clone", 1, LONG_MASK), ("prctl", 0, INT_MASK),
     ("prctl", 1, LONG_MASK), ("unshare", 0, LONG_MASK), ("ptrace", 0, LONG_MASK), ("mmap", 2, LONG_MASK),
     ("chmod", 1, 0xFFFF), ("openat", 3, 0xFFFF), ("no_such_call", 0, LONG_MASK)],
)  # fmt: skip
def test_argument_mask_is_what_the_kernel_looks_at(call: str, index: int, mask: int) -> None:
    assert argument_mask(call, index) == mask


def test_argument_table_names_calls_that_exist() -> None:
    assert [name for name, _ in _table() if not exists_elsewhere(name)] == []
    assert all(0 <= index <= 5 for _, index in _table())
