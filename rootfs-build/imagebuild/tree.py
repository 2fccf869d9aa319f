"""The guest's root while it is made: a directory of this machine, and beside it who owns what.

Rules: names are below the root and without a leading slash; no step follows a symbolic link of the tree, since an absolute one leads to
this machine's own files; owners that are not root are kept in `owners`, so that no root is needed to unpack or to build (`ext4` puts
them into the file system); /bin, /sbin and /lib are links to below /usr whatever packages still say (merged /usr, file-hierarchy(7)).

Device nodes are left out: devtmpfs has them.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from imagebuild.trouble import Trouble

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def merged(name: str) -> str:
    """Where `name` is once /usr is merged."""
    return f"usr/{name}" if name.split("/", 1)[0] in _MERGED else name


def merged_target(name: str, target: str) -> str:
    """What the link `name` must say to lead where `target` led before /usr was merged."""
    if target.startswith("/") or merged(name) == name:
        return target
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(f"/{name}"), target))
    return posixpath.relpath(f"/{merged(meant[1:])}", posixpath.dirname(f"/{merged(name)}"))


class Tree:
    """A root on its way. `owners` has uid and gid of what is not root's, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.owners: dict[str, tuple[int, int]] = {}

    def path(self, name: str) -> Path:
        """Where `name` is on this machine. Raises `Trouble` where a directory above it is a link or `name` leads out."""
        parts = name.split("/")
        if not name or name.startswith("/") or ".." in parts:
            raise Trouble(f"{name!r} is no name in the tree")
        above = self.root
        for part in parts[:-1]:
            above = above / part
            if above.is_symlink():
                raise Trouble(
                    f"{name!r} is below {above.relative_to(self.root)}, which is a symbolic link; say where it leads"
                )
        return self.root / name

    def exists(self, name: str) -> bool:
        return os.path.lexists(self.path(name))

    def read(self, name: str) -> str:
        return self.path(name).read_text()

    def write(self, name: str, data: str | bytes, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """A regular file, in place of whatever has that name; directories above it are made."""
        path = self._clear(name)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        self._own(name, owner)

    def copy(self, name: str, source: Path, *, mode: int = 0o644) -> None:
        """A regular file with the content of `source`."""
        path = self._clear(name)
        shutil.copyfile(source, path)
        path.chmod(mode)
        self._own(name, (0, 0))

    def link(self, name: str, target: str) -> None:
        """A symbolic link, in place of whatever has that name."""
        self._clear(name).symlink_to(target)
        self._own(name, (0, 0))

    def directory(self, name: str, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        """A directory, made or only given its mode and owner."""
        path = self.path(name)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        self._own(name, owner)

    def remove(self, name: str) -> None:
        """Whatever `name` is, with what is below it; nothing where it is not there."""
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        self.owners = {
            key: owner for key, owner in self.owners.items() if key != name and not key.startswith(f"{name}/")
        }

    def names(self, below: str = "") -> Iterator[str]:
        """All names below a directory, each directory before what is in it, in the order of their bytes."""
        for name in sorted(os.listdir(self.root / below), key=os.fsencode):
            whole = f"{below}/{name}" if below else name
            yield whole
            path = self.root / whole
            if path.is_dir() and not path.is_symlink():
                yield from self.names(whole)

    def settle(self, epoch: int) -> None:
        """Give everything the one time there is."""
        for name in (*self.names(), ""):
            os.utime(self.root / name, (epoch, epoch), follow_symlinks=False)

    def _clear(self, name: str) -> Path:
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            raise Trouble(f"{name!r} is a directory in the tree already")
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _own(self, name: str, owner: tuple[int, int]) -> None:
        self.owners.pop(name, None)
        if owner != (0, 0):
            self.owners[name] = owner


def unpack(tar: Path, tree: Tree) -> None:
    """Unpack a whole root. Raises `Trouble` for a member that is nothing a package may hold."""
    tree.root.mkdir(parents=True, exist_ok=True)
    for name in _MERGED[:3]:
        tree.directory(f"usr/{name}")
        tree.link(name, f"usr/{name}")
    with tarfile.open(tar) as archive:
        for member in archive:
            _unpack_member(archive, member, tree)
    for name in _MERGED[3:]:
        if tree.exists(f"usr/{name}") and not tree.exists(name):
            tree.link(name, f"usr/{name}")


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree) -> None:
    before = member.name.removeprefix("./").rstrip("/")
    name = merged(before)
    if before in ("", ".") or before in _MERGED or member.isdev():
        return
    owner = (member.uid, member.gid)
    if member.isdir():
        tree.directory(name, mode=stat.S_IMODE(member.mode), owner=owner)
    elif member.issym():
        tree.link(name, merged_target(before, member.linkname))
    elif member.islnk():
        path = tree.path(name)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(tree.path(merged(member.linkname.removeprefix("./"))), path)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        tree.write(name, content.read(), mode=stat.S_IMODE(member.mode), owner=owner)
    else:
        raise Trouble(f"{before!r} in {archive.name!r} is neither file, directory nor link")


def pack(tree: Tree, tar: Path) -> None:
    """Write the tree as a tar that `unpack` reads: names in order, owners from `owners`, each file once however many names it has."""
    first: dict[tuple[int, int], str] = {}
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in tree.names():
            path = tree.root / name
            member = archive.gettarinfo(str(path), arcname=name)
            member.uid, member.gid = tree.owners.get(name, (0, 0))
            member.uname = member.gname = ""
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                known = first.setdefault((status.st_dev, status.st_ino), name)
                member.type, member.linkname = (tarfile.REGTYPE, "") if known == name else (tarfile.LNKTYPE, known)
                member.size = status.st_size if known == name else 0
                with path.open("rb") as content:
                    archive.addfile(member, content if known == name else None)
            else:
                archive.addfile(member)
