"""The initrd's container: cpio's `newc` form, written so that the same content is the same bytes.

Entries come in the order of their names, all of one time, owned by root, with inode numbers counted from 1 and no links.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

Entry = tuple[int, bytes]
"""Mode with its kind (stat.S_IFREG and so on), and content: a file's bytes or where a link leads."""


def directory() -> Entry:
    return (stat.S_IFDIR | 0o755, b"")


def regular(content: bytes, *, mode: int = 0o644) -> Entry:
    return (stat.S_IFREG | mode, content)


def symlink(target: str) -> Entry:
    return (stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, *, mode: int = 0o600) -> Entry:
    """A device node; its numbers stand where another entry has content."""
    return (stat.S_IFCHR | mode, bytes((major, minor)))


def compose_cpio(entries: Mapping[str, Entry], *, epoch: int) -> bytes:
    """The archive of `entries` by name, with every directory above them."""
    whole = dict(entries)
    for name in entries:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            whole.setdefault("/".join(parts[:depth]), directory())
    archive = bytearray()
    for number, name in enumerate(sorted(whole), 1):
        mode, content = whole[name]
        archive += _member(name, mode, content, number=number, epoch=epoch)
    archive += _member("TRAILER!!!", 0, b"", number=0, epoch=0)
    return bytes(archive) + bytes(-len(archive) % 512)


def _member(name: str, mode: int, content: bytes, *, number: int, epoch: int) -> bytes:
    device = (content[0], content[1]) if stat.S_ISCHR(mode) else (0, 0)
    body = b"" if stat.S_ISCHR(mode) else content
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, epoch, len(body), 0, 0, *device, len(name.encode()) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + body + bytes(-len(body) % 4)
