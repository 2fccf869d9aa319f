"""What doctor says of memory and pressure: whom the OOM killer takes first, and whether the kernel tells that tasks wait.

Plain functions from facts to one `Finding` each, as in `services.doctor`.

Sources: proc(5) (oom_score_adj), Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Protocol

from coworkd.model.calls import Finding

COMMAND_SCORE = 100
"""What the launcher gives every command."""
UNIT_SCORE = -1000
"""What coworkd's units say: never."""
_LAUNCHER_PID = re.compile(r"pid (\d+)")


class LimitProbes(Protocol):
    """The facts. Each raises `OSError` where the machine refuses."""

    def read(self, path: str) -> str:
        """A file of /proc, /sys or /etc as text."""

    def launcher(self) -> str:
        """Who answers at the launcher's socket, for people: `pid 7 answers`."""


def check_oom_scores(probes: LimitProbes) -> Finding:
    """coworkd and its launcher outlive what they run."""
    scores = {"coworkd": int(probes.read("/proc/self/oom_score_adj"))}
    launcher = None
    with contextlib.suppress(OSError):  # another check tells of a launcher that is away
        launcher = _LAUNCHER_PID.search(probes.launcher())
    if launcher is not None:
        scores["its launcher"] = int(probes.read(f"/proc/{launcher[1]}/oom_score_adj"))
    said = ", ".join(f"{name} {score}" for name, score in scores.items())
    if max(scores.values()) >= COMMAND_SCORE:
        return Finding(
            check="oom-scores",
            state="degraded",
            detail=f"the OOM killer may take coworkd before a command ({COMMAND_SCORE}): {said}",
            remedy="start it with a lower oom_score_adj; coworkd.service says OOMScoreAdjust=-1000",
        )
    how = "never taken" if max(scores.values()) == UNIT_SCORE else f"taken after every command ({COMMAND_SCORE})"
    return Finding(check="oom-scores", state="ok", detail=f"{how}: {said}")


def check_pressure(probes: LimitProbes) -> Finding:
    """Pressure stall information is there."""
    try:
        probes.read("/proc/pressure/memory")
    except FileNotFoundError:
        return Finding(
            check="pressure",
            state="degraded",
            detail="the kernel tells of no pressure (PSI): nobody hears that commands wait for memory or processors",
            remedy="boot with psi=1, or a kernel with CONFIG_PSI",
        )
    return Finding(check="pressure", state="ok", detail="the kernel tells when tasks wait (PSI)")


LIMIT_CHECKS: dict[str, Callable[[LimitProbes], Finding]] = {
    "oom-scores": check_oom_scores,
    "pressure": check_pressure,
}
