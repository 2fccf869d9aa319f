"""The words of each call; tests/root/test_launcher.py sees what the kernel makes of them."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from coworkd.system import mounts
from tests.unit.system.syscalls import fake_syscalls


def test_open_tree_clones_the_descriptor_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch, 9, 10)
    assert mounts.open_tree(5, recursive=False) == 9
    assert mounts.open_tree(5, recursive=True) == 10
    plain = 0x1 | os.O_CLOEXEC | 0x1000
    assert kernel.calls == [(428, (5, b"", plain)), (428, (5, b"", plain | 0x8000))]


def test_move_mount_goes_from_descriptor_to_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch)
    mounts.move_mount(5, 6)
    assert kernel.call == (429, (5, b"", 6, b"", 0x44))


def test_mount_setattr_sets_and_clears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch)
    mounts.mount_setattr(5, set_attributes=mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID, recursive=True)
    assert kernel.call == (442, (5, b"", 0x9000, struct.pack("=QQQQ", 3, 0, 0, 0), 32))


def test_mount_setattr_maps_owners_by_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch)
    mounts.mount_setattr(5, set_attributes=0, user_namespace=8, recursive=False)
    assert kernel.call == (442, (5, b"", 0x1000, struct.pack("=QQQQ", 0x100000, 0, 0, 8), 32))


def test_mount_setattr_takes_a_clone_from_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch)
    mounts.mount_setattr(5, set_attributes=0, propagation=mounts.MS_PRIVATE, recursive=False)
    assert kernel.call == (442, (5, b"", 0x1000, struct.pack("=QQQQ", 0, 0, 0x40000, 0), 32))


def test_a_file_system_is_made_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    context = os.memfd_create("context")
    kernel = fake_syscalls(monkeypatch, context, 0, 0, 0, 12)
    made = mounts.make_file_system("fuse", (("fd", "7"), ("allow_other", None)), attributes=mounts.MOUNT_ATTR_NOSUID)
    assert made == 12
    assert kernel.calls == [
        (430, (b"fuse\0", 1)),
        (431, (context, 1, b"fd\0", b"7\0", 0)),
        (431, (context, 0, b"allow_other\0", None, 0)),
        (431, (context, 6, None, None, 0)),
        (432, (context, 1, 2)),
    ]
    assert not os.path.exists(f"/proc/self/fd/{context}")


def test_a_file_system_that_cannot_be_made_says_so_in_the_kernels_words(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    os.write(write, b"e overlay: no such layer\n")
    fake_syscalls(monkeypatch, read, -errno.EINVAL)
    with pytest.raises(OSError, match="overlay: no such layer") as caught:
        mounts.make_file_system("overlay", (), attributes=0)
    assert caught.value.errno == errno.EINVAL
    os.close(write)


def test_pivot_root_stacks_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch)
    mounts.pivot_root(b".", b".")
    assert kernel.call[1] == (b".", b".")


def test_mount_and_umount_raise_with_the_target() -> None:
    with pytest.raises(OSError, match="no/such") as mounted:
        mounts.mount(b"none", b"/no/such/place", b"tmpfs", 0)
    with pytest.raises(OSError, match="no/such") as unmounted:
        mounts.umount(b"/no/such/place", mounts.MNT_DETACH)
    assert {mounted.value.errno, unmounted.value.errno} <= {errno.ENOENT, errno.EPERM}
