"""Releases for tests: made and signed as the host does, and slots whose power can be cut at every step."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msgspec import structs

from coworkd.model.update import WORDS
from coworkd.release.manifest import MANIFEST, SIGNATURE, Content, Here, Manifest, ReleaseFile
from host_stub.release import compose_bytes
from host_stub.release_key import SecretKey, make_key, sign

KEY = SecretKey(key_id=b"01234567", seed=bytes(range(32)))
KEYS = (KEY.public,)
OTHER_KEY = make_key()
HERE = Here(architecture="x86_64", python="3.11", image_version="1.0", words=WORDS)
CODE = {"code/coworkd/__init__.py": b"__version__ = '1.1'\n", "code/coworkd/app.py": b"x" * 3000}


def file_of(path: str, data: bytes, *, mode: int = 0o644) -> ReleaseFile:
    return ReleaseFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mode=mode)


def manifest_of(content: dict[str, bytes], **changed: Any) -> Manifest:
    contents = tuple(dict.fromkeys(path.partition("/")[0] for path in sorted(content)))
    made = Manifest(
        format=1,
        name="coworkd",
        version="1.1",
        architecture="any",
        minimum_version="1.0",
        words=WORDS,
        contents=contents,  # type: ignore[arg-type]  # only a test may ask for others
        files=tuple(file_of(path, data) for path, data in content.items()),
    )
    return structs.replace(made, **changed)


def release(content: dict[str, bytes] | None = None, *, key: SecretKey = KEY, **changed: Any) -> dict[str, bytes]:
    """All the files of a signed release, by path."""
    content = CODE if content is None else content
    data = compose_bytes(manifest_of(content, **changed))
    return {**content, MANIFEST: data, SIGNATURE: sign(data, key, comment="for a test")}


def write_release(directory: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)


class PowerCut(BaseException):
    """Nothing runs any more: no handler of `Exception` may see it."""


class FakeEntry(NamedTuple):
    name: str
    kind: Literal["file", "directory", "other"]
    size: int


_Tree = dict[str, bytes | None]
"""Data of a file, None of a directory, by path."""


class FakeFiles:
    """Implements `store.SlotFiles` in memory. What was not synced can be lost; at step `cut_at` the power goes.

    Names are kept in order by a journal, as ext4 does; the data of a file that was not synced may be whole, cut, or not there at all.
    """

    def __init__(self, tree: _Tree | None = None, *, cut_at: int | None = None) -> None:
        self.tree: _Tree = dict(tree or {})
        self.durable: _Tree = dict(self.tree)
        self.unsynced: set[str] = set()
        self._log: list[Callable[[_Tree], None]] = []
        self._cut_at = cut_at
        self.steps = 0

    # -- reading ------------------------------------------------------------------------------------------------

    def entries(self, path: str) -> Sequence[FakeEntry]:
        if path and self.tree.get(path, b"") is not None:
            raise FileNotFoundError(2, "No such directory", path)
        start = f"{path}/" if path else ""
        names = [name for name in self.tree if name.startswith(start) and "/" not in name[len(start) :]]
        return [self._entry(name, start) for name in sorted(names)]

    def _entry(self, name: str, start: str) -> FakeEntry:
        data = self.tree[name]
        return FakeEntry(name[len(start) :], "directory" if data is None else "file", len(data or b""))

    def read(self, path: str, limit_bytes: int) -> bytes:
        data = self.tree.get(path)
        if data is None:
            raise FileNotFoundError(2, "No such file", path)
        return data[: limit_bytes + 1]

    def chunks(self, path: str) -> Iterator[bytes]:
        data = self.read(path, 1 << 30)
        for begin in range(0, len(data), 1000):
            yield data[begin : begin + 1000]

    # -- writing ------------------------------------------------------------------------------------------------

    def make_directory(self, path: str) -> None:
        self._step()
        if path in self.tree:
            raise FileExistsError(17, "File exists", path)
        self._do(lambda tree: tree.__setitem__(path, None))

    def write(self, path: str, chunks: Iterable[bytes], mode: int, *, sync: bool) -> None:
        self._step()
        if path in self.tree:
            raise FileExistsError(17, "File exists", path)
        self._do(lambda tree: tree.__setitem__(path, b""))
        self.unsynced.add(path)
        for chunk in chunks:
            self._step()
            whole = (self.tree[path] or b"") + chunk
            self.tree[path] = whole
        self._step()
        data = self.tree[path]
        self._log.append(lambda tree: tree.__setitem__(path, data) if path in tree else None)
        if sync:
            self._step()
            self.unsynced.discard(path)

    def sync_directory(self, path: str) -> None:
        self._step()
        self._settle()

    def sync_all(self) -> None:
        self._step()
        self.unsynced.clear()
        self._settle()

    def rename(self, old: str, new: str) -> None:
        self._step()
        if self.tree.get(new, b"") is None:
            raise FileExistsError(39, "Directory not empty", new)

        def renamed(tree: _Tree) -> None:
            for name in [name for name in tree if name == old or name.startswith(f"{old}/")]:
                tree[new + name[len(old) :]] = tree.pop(name)

        self._do(renamed)
        for name in [name for name in self.unsynced if name == old or name.startswith(f"{old}/")]:
            self.unsynced.remove(name)
            self.unsynced.add(new + name[len(old) :])

    def remove(self, path: str) -> None:
        # A tree goes name by name, and the power can go between any two.
        for name in sorted((name for name in self.tree if name == path or name.startswith(f"{path}/")), reverse=True):
            self._step()
            self._do(lambda tree, name=name: tree.pop(name, None))  # type: ignore[misc]
            self.unsynced.discard(name)

    # -- the power ----------------------------------------------------------------------------------------------

    def after_cut(self) -> Iterator[_Tree]:
        """Every state the disk may be in when the power is back: so many of the last names, and three fates of unsynced data."""
        for count, fate in itertools.product(range(len(self._log) + 1), ("whole", "cut", "lost")):
            tree = dict(self.durable)
            for change in self._log[:count]:
                change(tree)
            for name in self.unsynced:
                data = tree.get(name)
                if data is not None and fate != "whole":
                    tree[name] = data[: len(data) // 2] if fate == "cut" else b"\0" * len(data)
            yield tree

    def _do(self, change: Callable[[_Tree], None]) -> None:
        change(self.tree)
        self._log.append(change)

    def _settle(self) -> None:
        for change in self._log:
            change(self.durable)
        self._log.clear()

    def _step(self) -> None:
        if self.steps == self._cut_at:
            raise PowerCut
        self.steps += 1


def tree_of(files: dict[str, bytes], root: str = "") -> _Tree:
    """The same as a tree with its directories."""
    tree: _Tree = {root: None} if root else {}
    for path, data in files.items():
        whole = f"{root}/{path}" if root else path
        parts = whole.split("/")
        tree.update({"/".join(parts[:depth]): None for depth in range(1, len(parts))})
        tree[whole] = data
    return tree


CONTENTS: tuple[Content, ...] = ("code", "policies")
