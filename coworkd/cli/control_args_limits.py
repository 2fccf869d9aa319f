"""The words of `coworkctl session pause|resume|limits|top`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_args_storage import parse_size
from coworkd.cli.control_parser import add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers

_SIZES = {
    "memory_max": "memory past which its commands are killed",
    "memory_high": "memory past which they are slowed down, and memory is taken back",
    "swap_max": "swap, 0 for none",
    "tmp_max": "its /tmp; changes when no command runs",
    "disk_max": "its home and staged folders",
    "fsize_max": "the largest file, 0 for any",
    "core_max": "the largest core dump, 0 for none",
}
_COUNTS = {
    "pids_max": "processes and threads",
    "cpu_weight": "its share of the processors, 1 to 10000",
    "io_weight": "its share of the disks, 1 to 10000",
    "nofile": "open files of a process",
    "cpu_time_s": "seconds of processor time of a process, 0 for any",
}


def add_session_limits(verbs: Subparsers) -> None:
    """What runs in sessions, below `coworkctl session`."""
    pause = add_command(verbs, "pause", "control_limits:pause", "let the commands of a session stand still")
    pause.add_argument("name", metavar="NAME")
    resume = add_command(verbs, "resume", "control_limits:resume", "let the commands of a paused session go on")
    resume.add_argument("name", metavar="NAME")
    limits = add_command(
        verbs, "limits", "control_limits:limits", "show what a session may have, or change it while its commands run"
    )
    limits.add_argument("name", nargs="?", metavar="NAME")
    limits.add_argument("--process", metavar="ID", help="of this command alone")
    for name, said in _SIZES.items():
        limits.add_argument(_option(name), dest=name, type=parse_amount, metavar="SIZE", help=f"{said}: 512M, 2G")
    for name, said in _COUNTS.items():
        limits.add_argument(_option(name), dest=name, type=int, metavar="N", help=said)
    limits.add_argument("--cpu-max", dest="cpu_max", type=float, metavar="CPUS", help="processors: 0.5, 2")
    top = add_command(verbs, "top", "control_limits:top", "show what sessions take of memory, processors and disks")
    top.add_argument("name", nargs="?", metavar="NAME", help="default: all that are open")
    top.add_argument("--all", action="store_true", help="those too that are not open")


def parse_amount(text: str) -> int:
    """Bytes, and 0 for none. Raises `ArgumentTypeError`."""
    return 0 if text == "0" else parse_size(text)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
