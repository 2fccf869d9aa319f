"""What an image does without: removed after everything else is in place."""

from __future__ import annotations

import fnmatch

from imagebuild.tree import Tree

UNWANTED = (
    "boot/*",
    "etc/cron.*",
    "etc/init.d",
    "etc/rc?.d",
    "etc/apt",
    "etc/dpkg",
    "etc/initramfs-tools",
    "etc/kernel",
    "etc/logrotate.d",
    "usr/include",
    "usr/lib/systemd/boot",
    "usr/lib/udev/hwdb.bin",
    "usr/lib/udev/hwdb.d",
    "usr/share/bash-completion",
    "usr/share/zsh",
    "usr/share/base-passwd",
    "usr/share/i18n/*",
    "usr/share/initramfs-tools",
    "usr/share/perl/*/unicore/lib",
    "usr/share/pixmaps",
    "usr/share/applications",
    "var/cache/apt",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log/*",
)
"""Patterns of fnmatch over names; a directory goes with what is in it."""
UNLESS = {"usr/include": "usr/bin/gcc"}
"""Kept where this is there."""


def trim(tree: Tree) -> int:
    """Remove what matches; the bytes that were saved."""
    gone = [name for name in tree.names() if _unwanted(name, tree)]
    saved = 0
    for name in gone:
        if tree.exists(name):
            path = tree.path(name)
            below = [tree.root / inner for inner in tree.names(name)] if path.is_dir() and not path.is_symlink() else []
            saved += sum(inner.lstat().st_size for inner in (path, *below) if not inner.is_dir())
            tree.remove(name)
    return saved


def _unwanted(name: str, tree: Tree) -> bool:
    pattern = next((pattern for pattern in UNWANTED if fnmatch.fnmatchcase(name, pattern)), None)
    return pattern is not None and not (pattern in UNLESS and tree.exists(UNLESS[pattern]))
