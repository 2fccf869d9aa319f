"""The initrd: busybox, the few modules that lead to the root, and one script (`rootfs-build/init`).

Modules are loaded in the order they are listed in /modules, each after what it needs. `dmsetup` and its libraries come along only
where the root is checked by dm-verity.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from imagebuild.cpio import Entry, character_device, compose_cpio, directory, regular, symlink
from imagebuild.elf import needed_libraries
from imagebuild.kernel import read_module
from imagebuild.recipe import Recipe
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble

_APPLETS = (
    "sh",
    "cat",
    "cp",
    "cut",
    "echo",
    "findfs",
    "grep",
    "insmod",
    "ls",
    "mkdir",
    "mount",
    "poweroff",
    "printf",
    "readlink",
    "reboot",
    "rm",
    "sed",
    "sleep",
    "switch_root",
    "sync",
    "umount",
    "usleep",
)


def compose_initrd(tree: Tree, recipe: Recipe, *, script: bytes, modules: Sequence[str]) -> bytes:
    """The archive, not compressed. `modules` are names in the tree, in the order to load them."""
    entries: dict[str, Entry] = {
        "init": regular(script, mode=0o755),
        "bin/busybox": regular(tree.path("usr/bin/busybox").read_bytes(), mode=0o755),
        "dev/console": character_device(5, 1),
        "dev/null": character_device(1, 3, mode=0o666),
    }
    for name in ("proc", "sys", "run", "root", "lower"):
        entries[name] = directory()
    for applet in _APPLETS:
        entries[f"bin/{applet}"] = symlink("busybox")
    order = []
    for name in modules:
        short = posixpath.basename(name).partition(".ko")[0] + ".ko"
        order.append(short)
        entries[f"modules/{short}"] = regular(read_module(tree.path(name)))
    entries["modules/order"] = regular("".join(f"{name}\n" for name in order).encode())
    if recipe.verity:
        entries.update(_program(tree, "usr/sbin/dmsetup", recipe))
    return compose_cpio(entries, epoch=recipe.source_date_epoch)


def _program(tree: Tree, name: str, recipe: Recipe) -> dict[str, Entry]:
    """A dynamic program of the tree and every library it needs, where the loader looks for them."""
    if not tree.exists(name):
        raise Trouble(f"the initrd wants {name}, and no package of the list brings it")
    directories = (f"usr/lib/{recipe.architecture.triplet}", "usr/lib", "usr/lib64")
    loader = {"x86_64": "lib64", "aarch64": "lib"}[recipe.architecture.name]
    found: dict[str, Entry] = {f"bin/{posixpath.basename(name)}": regular(tree.path(name).read_bytes(), mode=0o755)}
    waiting = [*needed_libraries(tree.path(name).read_bytes()), recipe.architecture.loader]
    done: set[str] = set()
    while waiting:
        library = waiting.pop()
        if library in done:
            continue
        done.add(library)
        place = next((f"{where}/{library}" for where in directories if tree.path(f"{where}/{library}").exists()), None)
        if place is None:
            raise Trouble(f"{name} needs {library}, and it is in none of {', '.join(directories)}")
        content = (
            tree.path(place).resolve().read_bytes() if _leads_inside(tree, place) else tree.path(place).read_bytes()
        )
        where = loader if library == recipe.architecture.loader else f"lib/{recipe.architecture.triplet}"
        found[f"{where}/{library}"] = regular(content, mode=0o755)
        waiting += needed_libraries(content)
    return found


def _leads_inside(tree: Tree, name: str) -> bool:
    return tree.path(name).resolve().is_relative_to(tree.root.resolve())
