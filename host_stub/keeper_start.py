"""Starting a keeper that outlives whoever starts it, and hearing from it how the start went.

The child is in a session of its own (setsid(2)), so no terminal's signal reaches it, with the bundle as its directory's neighbour and
nothing of ours open but the pipe. What it says on standard error lands in logs/keeper.err, and its last lines are told where it died.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from host_stub.bundle import Bundle
from host_stub.bundle_files import Progress, telling
from host_stub.keeper_report import read_report
from host_stub.words import Trouble

ERRORS_NAME = "keeper.err"
ERRORS_LIMIT_BYTES = 1 << 20
_TAIL_BYTES = 2048


def keeper_command(bundle: Bundle, report_fd: int | None) -> list[str]:
    """The argv of a keeper."""
    report = [] if report_fd is None else ["--report-fd", str(report_fd)]
    return [sys.executable, "-m", "host_stub.keeper", *report, str(bundle.path)]


def start_keeper(bundle: Bundle, progress: Progress) -> int:
    """Start one and wait until the guest's kernel runs; the machine's pid. Raises the `Trouble` that the keeper tells, or its death."""
    errors = bundle.logs / ERRORS_NAME
    read_end, write_end = os.pipe()
    try:
        with telling("writing", errors), errors.open("ab") as file:
            # One that runs may have it open: who starts a second in vain takes away nothing of what the first has said.
            start = file.tell()
            if start > ERRORS_LIMIT_BYTES:
                file.truncate(0)
                start = 0
            child = subprocess.Popen(
                keeper_command(bundle, write_end),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                env={**os.environ, "PYTHONPATH": _import_path()},
                pass_fds=(write_end,),
                start_new_session=True,
            )
        os.close(write_end)
        write_end = -1
        pid = _heard(child, read_end, progress)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    if pid is None:
        raise Trouble(
            "keeper_died",
            f"the keeper ended with {child.wait()} before the machine was started: {_last_line(errors, start)}",
            remedy=f"see {errors}",
        )
    child.returncode = 0  # it lives on and is not ours to reap: without this Popen's end would warn of it
    return pid


def _heard(child: subprocess.Popen[bytes], read_end: int, progress: Progress) -> int | None:
    try:
        return read_report(read_end, progress)
    except Trouble:
        child.wait()  # it has said all, and ends
        raise
    except BaseException:
        child.returncode = 0  # interrupted: it goes on without us
        raise


def _import_path() -> str:
    """Where this package was found, for a child whose directory is another."""
    ours = str(Path(__file__).resolve().parent.parent)
    there = os.environ.get("PYTHONPATH")
    return f"{ours}{os.pathsep}{there}" if there else ours


def _last_line(errors: Path, start: int) -> str:
    try:
        data = errors.read_bytes()[start:][-_TAIL_BYTES:]
    except OSError:
        return "it said nothing"
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
