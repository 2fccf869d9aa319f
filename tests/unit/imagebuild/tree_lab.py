"""A recipe and a small root for the builder's tests; an ELF library of a few bytes."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagebuild.recipe import ARCHITECTURES, SUITES, Recipe
from imagebuild.tree import Tree

RECIPE = Recipe(
    architecture=ARCHITECTURES["x86_64"],
    suite=SUITES["bookworm"],
    packages=("bash",),
    sources=("deb http://mirror.test x main\n",),
)


def recipe(architecture: str = "x86_64", suite: str = "bookworm", **other: Any) -> Recipe:
    return replace(RECIPE, architecture=ARCHITECTURES[architecture], suite=SUITES[suite], **other)


def make_tree(root: Path, files: dict[str, str | bytes]) -> Tree:
    tree = Tree(root)
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        tree.write(name, content)
    return tree


def make_elf(*, soname: str = "", needed: tuple[str, ...] = (), machine: int = 62, kind: int = 3) -> bytes:
    """A shared object with one loadable segment that holds its dynamic section and that section's texts."""
    texts = bytearray(b"\0")
    entries = []
    for tag, text in (*((1, name) for name in needed), *(((14, soname),) if soname else ())):
        entries.append((tag, len(texts)))
        texts += text.encode() + b"\0"
    dynamic_at = 64 + 2 * 56
    strings_at = dynamic_at + 16 * (len(entries) + 2)
    entries += [(5, 0x1000 + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = strings_at + len(texts)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x1000, 0x1000, size, size, 4096)
    dynamic_header = struct.pack(
        "<IIQQQQQQ", 2, 6, dynamic_at, 0x1000 + dynamic_at, 0x1000 + dynamic_at, len(dynamic), len(dynamic), 8
    )
    return head + load + dynamic_header + dynamic + bytes(texts)
