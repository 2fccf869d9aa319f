"""Starting a launcher for a coworkd that has none."""

from __future__ import annotations

import os

from coworkd.cli.program_start import LINGER_S as LINGER_S
from coworkd.cli.program_start import START_TIMEOUT_S, answers, program_command, reap, start_program


def launcher_command(arguments: list[str]) -> list[str]:
    """The argv of a launcher with `arguments`."""
    return program_command("launcher", arguments)


def ensure_launcher(*, runtime_dir: str, bubblewrap: str, cgroup: str | None, linger_s: float | None) -> str:
    """The socket of the launcher of `runtime_dir`, started now if none answers. Raises `Unavailable`. Blocking."""
    reap()
    path = os.path.join(runtime_dir, "launcher.sock")
    if answers(path):
        return path
    base = os.path.join(runtime_dir, "base")
    os.makedirs(base, mode=0o700, exist_ok=True)
    arguments = ["--socket", path, "--base", base, "--bubblewrap", bubblewrap]
    if cgroup is not None:
        arguments += ["--cgroup", cgroup]
    if linger_s is not None:
        arguments += ["--linger", str(linger_s)]
    start_program("the launcher", launcher_command(arguments), path, timeout_s=START_TIMEOUT_S)
    return path
