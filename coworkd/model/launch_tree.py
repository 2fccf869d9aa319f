"""The mount tree of a session: what the launcher builds it of, in order of making. Part of the words of `model.launch`."""

from __future__ import annotations

from msgspec import Struct


class TreeDir(Struct, frozen=True, kw_only=True, tag="dir"):
    """A directory on the tree's own tmpfs, root-owned."""

    path: bytes
    mode: int = 0o755


class TreeFile(Struct, frozen=True, kw_only=True, tag="file"):
    """A small root-owned file on the tree's own tmpfs."""

    path: bytes
    data: bytes
    mode: int = 0o644


class TreeLink(Struct, frozen=True, kw_only=True, tag="link"):
    """A symbolic link on the tree's own tmpfs."""

    path: bytes
    target: bytes


class TreeBind(Struct, frozen=True, kw_only=True, tag="bind"):
    """A bind of the guest's directory `source`, looked up without following any symbolic link (openat2(2)).

    An `optional` one that is missing, or has no place in what is read-only already, is left out and told in `Opened.missing`; any
    other failure is `Refused`. The destination is made where it is missing, never through a symbolic link. Set-user-id bits and
    devices are always off.
    """

    source: bytes
    path: bytes
    read_only: bool
    recursive: bool = False
    optional: bool = False
    map_owner: bool = False
    """Show what the source's owner owns as the session's, by an idmapped mount; plain where the file system cannot."""


class TreeTmpfs(Struct, frozen=True, kw_only=True, tag="tmpfs"):
    """A bounded tmpfs without devices, owned by `uid` (and the gid of the same number)."""

    path: bytes
    size_bytes: int
    inodes: int
    mode: int
    uid: int


class TreeDevice(Struct, frozen=True, kw_only=True, tag="device"):
    """A character device node, 0666, on the tree's own tmpfs."""

    path: bytes
    major: int
    minor: int


class TreeProc(Struct, frozen=True, kw_only=True, tag="proc"):
    """A proc of the launcher's pid namespace: the kernel lets bubblewrap mount its own only where one is fully visible."""

    path: bytes


class TreeCopy(Struct, frozen=True, kw_only=True, tag="copy"):
    """A small file of the guest copied into the tree (at most 1 MiB); left out where it is missing."""

    source: bytes
    path: bytes


class TreeFileBind(Struct, frozen=True, kw_only=True, tag="file_bind"):
    """A bind of one plain file or unix socket of the guest over one of the tree, both looked up without following any symbolic link.

    An `optional` one is left out, and told in `Opened.missing`, where the source is missing or there is nothing to cover.
    Set-user-id bits and devices are always off. A socket can be connected to though it is read-only.
    """

    source: bytes
    path: bytes
    read_only: bool = True
    optional: bool = False
    make: bool = False
    """Make an empty file to cover where there is none."""
    of_tree: bool = False
    """`source` is a file of the tree itself, made before."""


TreeEntry = TreeDir | TreeFile | TreeLink | TreeBind | TreeFileBind | TreeTmpfs | TreeDevice | TreeProc | TreeCopy
