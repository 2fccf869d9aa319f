"""Names, numbers, architectures."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.numbers import (
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_ARM,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    Arch,
    exists_elsewhere,
    host_arch,
    host_kernel,
    names,
    nearest,
    numbers,
)


def test_audit_arches_are_the_kernels() -> None:
    found = (AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64, AUDIT_ARCH_I386, AUDIT_ARCH_ARM)
    assert found == (0xC000_003E, 0xC000_00B7, 0x4000_0003, 0x4000_0028)


@pytest.mark.parametrize(
    ("name", "x86_64", "aarch64"),
    [("read", 0, 63), ("socket", 41, 198), ("clone", 56, 220), ("ioctl", 16, 29), ("execveat", 322, 281)],
)
def test_numbers_of_old_calls_differ(name: str, x86_64: int, aarch64: int) -> None:
    assert (numbers(Arch.X86_64)[name], numbers(Arch.AARCH64)[name]) == (x86_64, aarch64)


@pytest.mark.parametrize("arch", list(Arch))
@pytest.mark.parametrize(
    ("name", "number"),
    [("io_uring_setup", 425), ("clone3", 435), ("cachestat", 451), ("fchmodat2", 452), ("futex_requeue", 456),
     ("statmount", 457), ("mseal", 462), ("removexattrat", 466), ("open_tree_attr", 467), ("file_setattr", 469)],
)  # fmt: skip
def test_numbers_of_new_calls_are_shared(arch: Arch, name: str, number: int) -> None:
    assert numbers(arch)[name] == number
    assert names(arch)[number] == name


def test_exists_elsewhere_knows_other_architectures_and_no_nonsense() -> None:
    assert exists_elsewhere("socketcall")
    assert exists_elsewhere("modify_ldt")
    assert not exists_elsewhere("sokcet")


def test_nearest_gives_the_spelling_or_nothing() -> None:
    assert nearest("opennat", Arch.X86_64) == "openat"
    assert nearest("zzzzzzzzzz", Arch.X86_64) is None


def test_host_arch_refuses_an_architecture_without_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    with pytest.raises(InvalidParams, match="riscv64"):
        host_arch()


@pytest.mark.parametrize(
    ("release", "kernel"), [("6.8.0-45-generic", (6, 8)), ("6.1-rc3", (6, 1)), ("6.18.44+", (6, 18)), ("7.0", (7, 0))]
)
def test_host_kernel_reads_the_release(monkeypatch: pytest.MonkeyPatch, release: str, kernel: tuple[int, int]) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert host_kernel() == kernel
