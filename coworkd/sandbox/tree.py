"""What a session's root holds, as typed entries in the order of making.

Rules
- Nothing of another session, of the state directory or of coworkd's own run directory is in it.
- /usr, /opt and a chosen /etc are read-only; passwd and group know this session's user and nobody else.
- Tools that were installed lie at `/opt/tools`, where the guest's own /opt has that directory.
- The trust, where there is one, lies at `/etc/coworkd/trust`, and its `certs` over the guest's `/etc/ssl/certs`.
- Folders lie below `/sessions/NAME/mnt`, a root-owned tmpfs mounted over the home's own `mnt`: a mount point cannot be renamed or
  replaced by a link, so the session can neither hide nor redirect a folder. They are no part of the tree: they come and go.

It does not say how the entries are made: `launcher.tree` does.
"""

from __future__ import annotations

from collections.abc import Iterator

from coworkd.model.launch import (
    TreeBind,
    TreeCopy,
    TreeDevice,
    TreeDir,
    TreeEntry,
    TreeFile,
    TreeLink,
    TreeProc,
    TreeTmpfs,
)
from coworkd.model.layout import GuestLayout
from coworkd.sandbox.bwrap_plan import EMPTY_DIRECTORY
from coworkd.sandbox.proxy_files import OWN_DIRECTORY, compose_proxy_files

HOSTNAME = b"claude"
TOOLS = b"/opt/tools"
_MOUNTS_TMPFS_BYTES = 1024 * 1024
_MOUNTS_INODES = 1024
_SHM_BYTES = 256 * 1024 * 1024
_SHM_INODES = 16_384
_TMP_BYTES_PER_INODE = 4096
_MAX_TMP_INODES = 1_000_000
_MIN_TMP_INODES = 16
"""Never 0, which tmpfs takes for no bound."""

_DEVICES = ((b"null", 1, 3), (b"zero", 1, 5), (b"full", 1, 7), (b"random", 1, 8), (b"urandom", 1, 9), (b"tty", 5, 0))
_NSSWITCH = b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"


def compose_tree(
    *,
    name: str,
    uid: int,
    home: bytes,
    tmp_max_bytes: int,
    layout: GuestLayout,
    trust: bytes | None = None,
    tools: bytes | None = None,
) -> tuple[TreeEntry, ...]:
    """The whole tree of session `name`; `home` is the guest path of its home directory, `trust` that of its certificates,
    `tools` that of the installed tools.
    """
    return (
        *_system(layout),
        *_tools(tools),
        *_etc(name, uid, layout),
        *compose_proxy_files(layout),
        *_trust(trust, layout),
        *_kernel(layout),
        TreeTmpfs(
            path=b"/tmp",
            size_bytes=tmp_max_bytes,
            inodes=max(_MIN_TMP_INODES, min(tmp_max_bytes // _TMP_BYTES_PER_INODE, _MAX_TMP_INODES)),
            mode=0o1777,
            uid=uid,
        ),
        TreeTmpfs(path=b"/dev/shm", size_bytes=_SHM_BYTES, inodes=_SHM_INODES, mode=0o1777, uid=uid),
        TreeDir(path=b"/var", mode=0o755),
        TreeDir(path=EMPTY_DIRECTORY, mode=0o555),
        TreeLink(path=b"/var/tmp", target=b"../tmp"),
        TreeDir(path=b"/sessions", mode=0o755),
        TreeDir(path=sandbox_home(name), mode=0o700),
        TreeBind(source=home, path=sandbox_home(name), read_only=False),
        TreeTmpfs(
            path=sandbox_home(name) + b"/mnt", size_bytes=_MOUNTS_TMPFS_BYTES, inodes=_MOUNTS_INODES, mode=0o755, uid=0
        ),
    )


def sandbox_home(name: str) -> bytes:
    """The home as the session sees it."""
    return b"/sessions/" + name.encode()


def folder_path(name: str, folder: str) -> bytes:
    """Where a folder is mounted."""
    return sandbox_home(name) + b"/mnt/" + folder.encode()


def _system(layout: GuestLayout) -> Iterator[TreeEntry]:
    for path in layout.directories:
        yield TreeBind(source=path, path=path, read_only=True, optional=path != b"/usr")
    for path, target in layout.links:
        yield TreeLink(path=path, target=target)


def _tools(tools: bytes | None) -> Iterator[TreeEntry]:
    if tools is not None:
        yield TreeBind(source=tools, path=TOOLS, read_only=True, optional=True)


def _etc(name: str, uid: int, layout: GuestLayout) -> Iterator[TreeEntry]:
    user = name.encode()
    yield TreeDir(path=b"/etc", mode=0o755)
    passwd = b"%s:x:%d:%d::%s:/bin/bash\n" % (user, uid, uid, sandbox_home(name))
    yield TreeFile(path=b"/etc/passwd", data=passwd)
    yield TreeFile(path=b"/etc/group", data=b"%s:x:%d:\n" % (user, uid))
    yield TreeFile(path=b"/etc/hostname", data=HOSTNAME + b"\n")
    yield TreeFile(path=b"/etc/hosts", data=b"127.0.0.1 localhost " + HOSTNAME + b"\n::1 localhost\n")
    yield TreeFile(path=b"/etc/nsswitch.conf", data=_NSSWITCH)
    yield TreeFile(path=b"/etc/resolv.conf", data=b"# names are resolved by the proxies, not in here\n")
    yield TreeLink(path=b"/etc/os-release", target=b"../usr/lib/os-release")
    yield TreeLink(path=b"/etc/mtab", target=b"../proc/self/mounts")
    for path in layout.etc_files:
        yield TreeCopy(source=path, path=path)
    for path in layout.etc_directories:
        yield TreeBind(source=path, path=path, read_only=True, optional=True)


def _trust(trust: bytes | None, layout: GuestLayout) -> Iterator[TreeEntry]:
    if trust is None:
        return
    yield TreeBind(source=trust, path=OWN_DIRECTORY + b"/trust", read_only=True)
    if b"/etc/ssl" not in layout.etc_directories:
        yield TreeDir(path=b"/etc/ssl", mode=0o755)
    yield TreeBind(source=trust + b"/certs", path=b"/etc/ssl/certs", read_only=True, optional=True)


def _kernel(layout: GuestLayout) -> Iterator[TreeEntry]:
    yield TreeProc(path=b"/proc")
    yield TreeDir(path=b"/dev", mode=0o755)
    for device, major, minor in _DEVICES:
        yield TreeDevice(path=b"/dev/" + device, major=major, minor=minor)
    yield TreeDir(path=b"/sys", mode=0o755)
    made: set[bytes] = set()
    for path, content in layout.cpu_files:
        for directory in _parents(path):
            if directory not in made:
                made.add(directory)
                yield TreeDir(path=directory, mode=0o755)
        yield TreeFile(path=path, data=content)


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")[2:-1]
    return [b"/sys/" + b"/".join(parts[: count + 1]) for count in range(len(parts))]
