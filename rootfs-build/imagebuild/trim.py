"""What an image does without: removed after everything else is in place; and set-id bits, which no command may use anyway."""

from __future__ import annotations

import fnmatch
import stat

from imagebuild.tree import Tree

UNWANTED = (
    "boot/*",
    "etc/apt",
    "etc/cron.*",
    "etc/dpkg",
    "etc/init.d",
    "etc/initramfs-tools",
    "etc/kernel",
    "etc/logrotate.d",
    "etc/rc?.d",
    "usr/include",
    "usr/lib/*/gconv/*",
    "usr/lib/kernel",
    "usr/lib/linux-image-*",
    "usr/lib/python3*/ensurepip",
    "usr/lib/python3*/idlelib",
    "usr/lib/python3*/lib2to3",
    "usr/lib/python3*/pydoc_data",
    "usr/lib/python3*/test",
    "usr/lib/python3*/tkinter",
    "usr/lib/python3*/turtle*",
    "usr/lib/systemd/boot",
    "usr/lib/systemd/catalog",
    "usr/lib/systemd/network",
    "usr/lib/systemd/ntp-units.d",
    "usr/lib/systemd/portable",
    "usr/lib/systemd/system-generators/*",
    "usr/lib/systemd/systemd-bless-boot",
    "usr/lib/systemd/systemd-cryptsetup",
    "usr/lib/systemd/systemd-growfs",
    "usr/lib/systemd/systemd-hibernate-resume",
    "usr/lib/systemd/systemd-homed",
    "usr/lib/systemd/systemd-hostnamed",
    "usr/lib/systemd/systemd-initctl",
    "usr/lib/systemd/systemd-integritysetup",
    "usr/lib/systemd/systemd-localed",
    "usr/lib/systemd/systemd-logind",
    "usr/lib/systemd/systemd-machined",
    "usr/lib/systemd/systemd-network-generator",
    "usr/lib/systemd/systemd-networkd",
    "usr/lib/systemd/systemd-networkd-wait-online",
    "usr/lib/systemd/systemd-pcrphase",
    "usr/lib/systemd/systemd-portabled",
    "usr/lib/systemd/systemd-pstore",
    "usr/lib/systemd/systemd-quotacheck",
    "usr/lib/systemd/systemd-resolved",
    "usr/lib/systemd/systemd-rfkill",
    "usr/lib/systemd/systemd-sysext",
    "usr/lib/systemd/systemd-time-wait-sync",
    "usr/lib/systemd/systemd-timedated",
    "usr/lib/systemd/systemd-timesyncd",
    "usr/lib/systemd/systemd-update-utmp",
    "usr/lib/systemd/systemd-user-runtime-dir",
    "usr/lib/systemd/systemd-user-sessions",
    "usr/lib/systemd/systemd-userdbd",
    "usr/lib/systemd/systemd-userwork",
    "usr/lib/systemd/systemd-veritysetup",
    "usr/lib/systemd/user",
    "usr/lib/systemd/user-*",
    "usr/lib/udev/hwdb.bin",
    "usr/lib/udev/hwdb.d",
    "usr/lib/udev/rules.d/*",
    "usr/share/applications",
    "usr/share/base-passwd",
    "usr/share/bash-completion",
    "usr/share/i18n/*",
    "usr/share/initramfs-tools",
    "usr/share/pixmaps",
    "usr/share/zsh",
    "var/cache/apt",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log/*",
)
"""Patterns of fnmatch over names, in which * also stands for /; a directory goes with what is in it."""
KEPT = (
    "usr/lib/*/gconv/gconv-modules",
    "usr/lib/*/gconv/CP1252.so",
    "usr/lib/*/gconv/ISO8859-1.so",
    "usr/lib/*/gconv/ISO8859-15.so",
    "usr/lib/*/gconv/UNICODE.so",
    "usr/lib/*/gconv/UTF-16.so",
    "usr/lib/*/gconv/UTF-32.so",
    "usr/lib/*/gconv/UTF-7.so",
    "usr/lib/systemd/system-generators/systemd-debug-generator",
    "usr/lib/udev/rules.d/50-udev-default.rules",
    "usr/lib/udev/rules.d/55-dm.rules",
    "usr/lib/udev/rules.d/60-block.rules",
    "usr/lib/udev/rules.d/60-persistent-storage.rules",
    "usr/lib/udev/rules.d/80-debian-compat.rules",
    "usr/lib/udev/rules.d/80-drivers.rules",
    "usr/lib/udev/rules.d/99-systemd.rules",
)
"""Of those, what stays. The rules of udev cost each device at every boot; what the other generators make, no guest has."""
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


def drop_set_id(tree: Tree) -> list[str]:
    """Take set-user-id and set-group-id from every file; their names. What needs root in a guest is root's, and asks for no more."""
    found = []
    for name in tree.names():
        path = tree.root / name
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))
            found.append(name)
    return found


def _unwanted(name: str, tree: Tree) -> bool:
    pattern = next((pattern for pattern in UNWANTED if fnmatch.fnmatchcase(name, pattern)), None)
    if pattern is None or any(fnmatch.fnmatchcase(name, kept) for kept in KEPT):
        return False
    return not (pattern in UNLESS and tree.exists(UNLESS[pattern]))
