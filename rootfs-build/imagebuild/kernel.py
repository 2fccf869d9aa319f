"""The kernel of the image and its modules: which are kept, in what order the initrd loads its own.

`files/modules.txt` lists, with the initrd's first, what an image may need; what they depend on comes along. Nothing of a module is
changed (its signature stays good); only files are left out, and `depmod` makes the indexes anew for what is there. Compressed modules
(Ubuntu) are unpacked for the initrd, whose insmod knows no compression.
"""

from __future__ import annotations

import fnmatch
import gzip
import lzma
import posixpath
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from imagebuild.run import run
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble

_MODULES = "usr/lib/modules"
_SUFFIX = re.compile(r"\.ko(\.xz|\.zst|\.gz)?\Z")


@dataclass(frozen=True, kw_only=True)
class ModuleList:
    """Patterns of module names or of paths below kernel/, by where they are wanted."""

    initrd: tuple[str, ...]
    verity: tuple[str, ...]
    """Also of the initrd, where the root is checked."""
    root: tuple[str, ...]


def parse_module_list(text: str) -> ModuleList:
    """`initrd:` before a line makes it one of the initrd, `verity:` one of an initrd that checks; the rest is for the root alone."""
    lines = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]

    def of(kind: str) -> tuple[str, ...]:
        return tuple(
            name.strip() for found, colon, name in (line.partition(":") for line in lines) if colon and found == kind
        )

    return ModuleList(initrd=of("initrd"), verity=of("verity"), root=tuple(line for line in lines if ":" not in line))


def kernel_version(tree: Tree) -> str:
    """The one kernel that is there. Raises `Trouble` for none or several."""
    found = sorted(path.name for path in (tree.root / _MODULES).glob("*")) if (tree.root / _MODULES).is_dir() else []
    if len(found) != 1:
        raise Trouble(f"an image has one kernel, and the packages bring {len(found)}: {', '.join(found) or 'none'}")
    return found[0]


def take_kernel(tree: Tree) -> bytes:
    """The kernel as boot loaders want it: raw as it is in the package (x86), unpacked where it is compressed (arm64)."""
    path = tree.path(f"boot/vmlinuz-{kernel_version(tree)}")
    if not path.exists():
        raise Trouble(f"the kernel's package brings no {path.name}")
    return path.read_bytes()


def module_name(path: str) -> str:
    """The name of a module by its file; `-` and `_` mean the same."""
    return _SUFFIX.sub("", posixpath.basename(path)).replace("-", "_")


def parse_dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """modules.dep(5): path to the paths it needs, all of them, what is needed first the last."""
    return {line.partition(":")[0]: tuple(line.partition(":")[2].split()) for line in text.splitlines() if ":" in line}


def choose_modules(dependencies: dict[str, tuple[str, ...]], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of all modules that match, with what they need, each after what it needs."""
    chosen: dict[str, None] = {}
    for pattern in patterns:
        for path in sorted(dependencies):
            named = module_name(path) == pattern.replace("-", "_") or fnmatch.fnmatchcase(path, f"kernel/{pattern}")
            if named:
                chosen.update(dict.fromkeys((*reversed(dependencies[path]), path)))
    return tuple(chosen)


def keep_modules(tree: Tree, wanted: ModuleList, *, verity: bool) -> tuple[str, ...]:
    """Drop every module that no pattern wants; the names, in the tree, of the initrd's in the order to load them."""
    version = kernel_version(tree)
    here = f"{_MODULES}/{version}"
    _depmod(tree, version)
    dependencies = parse_dependencies(tree.read(f"{here}/modules.dep"))
    initrd = choose_modules(dependencies, (*wanted.initrd, *(wanted.verity if verity else ())))
    kept = {*initrd, *choose_modules(dependencies, wanted.root)}
    for path in dependencies:
        if path not in kept:
            tree.remove(f"{here}/{path}")
    for name in reversed(list(tree.names(f"{here}/kernel"))):
        place = tree.path(name)
        if place.is_dir() and not any(place.iterdir()):
            tree.remove(name)
    _depmod(tree, version)
    for name in ("build", "source"):
        tree.remove(f"{here}/{name}")
    return tuple(f"{here}/{path}" for path in initrd)


def read_module(path: Path) -> bytes:
    """A module's bytes, unpacked."""
    if path.suffix == ".ko":
        return path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    return subprocess.run(["zstd", "-dcq", str(path)], capture_output=True, check=True).stdout


def _depmod(tree: Tree, version: str) -> None:
    run(["depmod", "-b", str(tree.root), version])
