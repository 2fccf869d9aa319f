"""What needs no root: the calls' errors and the words to the interface. tests/root/test_launcher.py joins real namespaces."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Any

import pytest

from coworkd.system import namespaces


def test_unshare_refuses_flags_the_kernel_does_not_know() -> None:
    with pytest.raises(OSError, match="Invalid") as caught:
        namespaces.unshare(1)
    assert caught.value.errno == errno.EINVAL


def test_unshare_of_nothing_is_nothing() -> None:
    namespaces.unshare(0)


def test_setns_wants_a_namespace() -> None:
    with open("/dev/null") as file, pytest.raises(OSError, match="Invalid") as caught:
        namespaces.setns(file.fileno(), namespaces.CLONE_NEWNET)
    assert caught.value.errno == errno.EINVAL


def test_flags_are_those_of_the_kernel() -> None:
    """Python has them from 3.12 on; the numbers are the kernel's in any case (include/uapi/linux/sched.h)."""
    known = {name: getattr(os, name) for name in dir(os) if name.startswith("CLONE_NEW") and hasattr(namespaces, name)}
    said = {name: getattr(namespaces, name) for name in dir(namespaces) if name.startswith("CLONE_NEW")}
    assert len(set(said.values())) == 7
    assert {**said, **known} == said


def test_set_loopback_up_adds_one_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bytes]] = []

    def ioctl(control: Any, request: int, record: bytes) -> bytes:
        asked.append((request, record))
        return struct.pack("16sh22x", b"lo", 0x8)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    namespaces.set_loopback_up()
    assert asked == [
        (0x8913, struct.pack("16sh22x", b"lo", 0)),
        (0x8914, struct.pack("16sh22x", b"lo", 0x9)),
    ]
