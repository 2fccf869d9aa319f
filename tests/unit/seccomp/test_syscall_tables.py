"""The tables hold no number twice and agree with the headers where this machine has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coworkd.seccomp.numbers import Arch, numbers
from coworkd.seccomp.syscall_tables import AARCH64, OTHER_ARCHES, SHARED, X86_64

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


@pytest.mark.parametrize("table", [X86_64 + SHARED, AARCH64 + SHARED])
def test_runs_ascend_without_overlap(table: tuple[tuple[int, str], ...]) -> None:
    at = 0
    for first, names in table:
        assert first >= at
        at = first + len(names.split())


@pytest.mark.parametrize("table", [X86_64 + SHARED, AARCH64 + SHARED])
def test_names_stand_once(table: tuple[tuple[int, str], ...]) -> None:
    names = [name for _, text in table for name in text.split()]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(not HEADER.exists(), reason="no x86_64 kernel headers on this machine")
def test_x86_64_agrees_with_the_kernel_header() -> None:
    theirs = {name: int(value) for name, value in re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text())}
    ours = numbers(Arch.X86_64)
    assert {name: ours.get(name) for name in theirs if theirs[name] < 472} == {
        name: value for name, value in theirs.items() if value < 472
    }


def test_other_arches_names_none_of_ours() -> None:
    assert not set(OTHER_ARCHES.split()) & (set(numbers(Arch.X86_64)) | set(numbers(Arch.AARCH64)))
