"""Bounds: what a session with pids_max = 64 and tmp_max = 1 MiB can take of processes, files and memory files."""

from __future__ import annotations

import os
import resource
import signal

from tests.root.probes.kernel import Given, probe, word_of

CHUNK = b"\0" * 65536


@probe("limit.processes")
def processes(_given: Given) -> str:
    """A small fork bomb: it stops by itself below 64 children."""
    children: list[int] = []
    said = "no end"
    while len(children) < 200:
        try:
            child = os.fork()
        except OSError as error:
            said = word_of(error)
            break
        if child == 0:
            signal.pause()
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return f"{said} {'within' if 0 < len(children) < 64 else len(children)}"


@probe("limit.tmp-bytes")
def tmp_bytes(_given: Given) -> str:
    written = 0
    with open("/tmp/filled", "wb", buffering=0) as file:
        try:
            while written < 16 << 20:
                written += file.write(CHUNK)
        except OSError as error:
            os.unlink("/tmp/filled")
            return f"{word_of(error)} {'within' if written <= 1 << 20 else written}"
    return f"no end {written}"


@probe("limit.tmp-files")
def tmp_files(_given: Given) -> str:
    made: list[str] = []
    said = "no end"
    while len(made) < 2000:
        try:
            os.close(os.open(f"/tmp/file-{len(made)}", os.O_WRONLY | os.O_CREAT))
        except OSError as error:
            said = word_of(error)
            break
        made.append(f"/tmp/file-{len(made)}")
    for path in made:
        os.unlink(path)
    return f"{said} {'within' if 0 < len(made) <= 256 else len(made)}"


@probe("limit.shared-memory")
def shared_memory(_given: Given) -> str:
    found = os.statvfs("/dev/shm")
    return "bounded" if 0 < found.f_blocks * found.f_frsize <= 256 << 20 and 0 < found.f_files <= 16384 else "unbounded"


@probe("limit.mnt")
def mnt(given: Given) -> str:
    found = os.statvfs(given["home"] + "/mnt")
    return "bounded" if 0 < found.f_blocks * found.f_frsize <= 1 << 20 else "unbounded"


@probe("limit.core")
def core(_given: Given) -> str:
    return f"{resource.getrlimit(resource.RLIMIT_CORE)}"


@probe("limit.nofile")
def nofile(given: Given) -> str:
    return "as the profile says" if resource.getrlimit(resource.RLIMIT_NOFILE) == (given["nofile"],) * 2 else "other"
