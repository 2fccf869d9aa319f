"""What is installed here: the root's layout, and bubblewrap's options. Asked once at start."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import subprocess

from coworkd.model.layout import BwrapFeatures, GuestLayout

_TOP_LEVEL = (b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32")
_ETC_DIRECTORIES = ("ssl", "alternatives", "java-*", "maven*", "fonts", "terminfo", "python3*", "ca-certificates")
_ETC_FILES = ("ld.so.cache", "ld.so.conf", "localtime", "services", "protocols", "mime.types", "debian_version")
_CPU_FILES = ("online", "possible", "present")
_PROC_MASKED = (
    "acpi",
    "kcore",
    "keys",
    "key-users",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
_PROC_READ_ONLY = ("asound", "bus", "fs", "irq", "pressure", "sys", "sysrq-trigger")
_PYTHONS = ("/usr/bin/python3",)
_JAVA_HOMES = ("/usr/lib/jvm/*", "/opt/*", "/opt/*/*")
_JAVA_PROPERTIES = ("conf/net.properties", "lib/net.properties", "jre/lib/net.properties")
_JAVA_LIMIT = 16
_JAVA_BYTES = 64 * 1024
_ASK_TIMEOUT_S = 10


def read_layout() -> GuestLayout:
    """Look at the root file system."""
    links, directories = [], [b"/usr"]
    for name in _TOP_LEVEL:
        path = b"/" + name
        if os.path.islink(path):
            links.append((path, os.readlink(path).lstrip(b"/")))
        elif os.path.isdir(path):
            directories.append(path)
    if os.path.isdir("/opt"):
        directories.append(b"/opt")
    return GuestLayout(
        links=tuple(links),
        directories=tuple(directories),
        etc_directories=tuple(
            os.fsencode(path)
            for pattern in _ETC_DIRECTORIES
            for path in sorted(glob.glob(f"/etc/{pattern}"))
            if os.path.isdir(path) and not os.path.islink(path)
        ),
        etc_files=tuple(b"/etc/" + name.encode() for name in _ETC_FILES if os.path.isfile(f"/etc/{name}")),
        cpu_files=tuple(_read_cpu_files()),
        proc_masked=tuple(b"/proc/" + name.encode() for name in _PROC_MASKED if os.path.isfile(f"/proc/{name}")),
        proc_emptied=tuple(b"/proc/" + name.encode() for name in _PROC_MASKED if os.path.isdir(f"/proc/{name}")),
        proc_read_only=tuple(b"/proc/" + name.encode() for name in _PROC_READ_ONLY if os.path.exists(f"/proc/{name}")),
        python=next((path.encode() for path in _PYTHONS if os.access(path, os.X_OK)), None),
        java_net_properties=tuple(_read_java_properties()),
    )


def _read_cpu_files() -> list[tuple[bytes, bytes]]:
    found = []
    for name in _CPU_FILES:
        path = f"/sys/devices/system/cpu/{name}"
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found.append((path.encode(), file.read(4096)))
    return found


def _read_java_properties() -> list[tuple[bytes, bytes]]:
    found = {
        os.path.realpath(path)
        for home in _JAVA_HOMES
        for name in _JAVA_PROPERTIES
        for path in glob.glob(f"{home}/{name}")
        if os.path.isfile(path)
    }
    read = []
    for path in sorted(found)[:_JAVA_LIMIT]:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            content = file.read(_JAVA_BYTES + 1)
            if len(content) <= _JAVA_BYTES:
                read.append((os.fsencode(path), content))
    return read


def read_bwrap_features(path: str | None = None) -> BwrapFeatures:
    """Ask bubblewrap what it can do. Raises `FileNotFoundError` where there is none below /usr, `OSError` where it does not answer."""
    found = path or shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")
    if found is None:
        raise FileNotFoundError(2, "bubblewrap is not installed: install the package `bubblewrap`", "bwrap")
    version = _ask(found, "--version").strip()
    return BwrapFeatures(path=found, version=version, options=parse_help(_ask(found, "--help")))


def parse_help(text: str) -> frozenset[str]:
    """Every option bubblewrap's help names."""
    return frozenset(re.findall(r"^\s+(--[a-z0-9-]+)", text, re.MULTILINE))


def _ask(path: str, option: str) -> str:
    try:
        answer = subprocess.run(
            [path, option], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False, env={}
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(errno.ETIMEDOUT, f"it does not answer {option} in {_ASK_TIMEOUT_S} s", path) from error
    return answer.stdout or answer.stderr
