"""What repairs of the session disk said: `STATE/fsck/YYYYMMDD-HHMMSS.txt`, the newest few kept. Blocking; for a person to read."""

from __future__ import annotations

import contextlib
import os
import time

REPORTS_KEPT = 8


def keep_report(state_dir: str, report: str, *, at: float) -> str:
    """Write it, and let go of the oldest; its path. Raises `OSError`."""
    directory = os.path.join(state_dir, "fsck")
    os.makedirs(directory, 0o700, exist_ok=True)
    path = os.path.join(directory, time.strftime("%Y%m%d-%H%M%S.txt", time.gmtime(at)))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(report)
        file.flush()
        os.fsync(fd)
    for name in sorted(os.listdir(directory))[:-REPORTS_KEPT]:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))
    return path
