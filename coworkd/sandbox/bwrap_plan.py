"""bubblewrap's options, in the order bubblewrap applies them: the walls, which are a session's, then what is one command's own.

Rules
- Only options the installed bubblewrap names in its help are given; one that protects and is missing is a refusal, unless another layer
  holds the same wall (`--disable-userns`: the base filter refuses new user namespaces as well).
- No destination below something the session can write (CVE-2026-87766): `refuse_writable_destinations` walks the finished list.
- `--remount-ro` of /dev and / come last: what comes after them could not be made.
Source: bwrap(1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache

from coworkd.model.errors import SandboxSetupFailed
from coworkd.model.layout import BwrapFeatures, GuestLayout

REQUIRED_OPTIONS = (
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "--clearenv",
    "--add-seccomp-fd",
    "--json-status-fd",
    "--block-fd",
    "--args",
    "--remount-ro",
    "--hostname",
)
_OPTIONAL_OPTIONS = ("--disable-userns",)
EMPTY_DIRECTORY = b"/var/empty"
_INIT_MEMORY = (b"/proc/1/mem", b"/proc/1/task/1/mem")
"""bubblewrap's init installs the filters only after it has forked the command: a quick command could write itself into an init that has
none. The base filter keeps ptrace and process_vm_* away from pid 1, and these are the files that do the same."""
_INIT_WORDS = (b"/proc/1/cmdline", b"/proc/1/task/1/cmdline")
"""bubblewrap's init shows its layout and what it was asked to execute: the command, or the shim before it became that. Nobody's business,
and a command must not find out which, nor a pattern of `pkill -f` find it."""
_INIT_DESCRIPTORS = (b"/proc/1/fd", b"/proc/1/task/1/fd")
"""bubblewrap's init changes to the command's directory while it still holds the /proc of the session's tree, which has every mask
off and shows processes of outside: a directory named, or a link planted, as /proc/self/fd/3 would take the command there."""


@lru_cache(maxsize=64)
def plan_walls(home: bytes, hostname: bytes, layout: GuestLayout, features: BwrapFeatures) -> tuple[bytes, ...]:
    """What every command of a session has in common, planned and judged once. Raises `SandboxSetupFailed` where an option is missing."""
    missing = [option for option in REQUIRED_OPTIONS if not features.has(option)]
    if missing:
        raise SandboxSetupFailed(
            f"bubblewrap {features.version} lacks {', '.join(missing)}: install 0.6.1 or newer", stage="sandbox_setup"
        )
    options = (
        *_isolation(hostname, features),
        *_views(home, layout),
        *_proc(layout),
        *(b"--remount-ro", b"/dev", b"--remount-ro", b"/"),
    )
    refuse_writable_destinations(options, writable=(b"/tmp", b"/dev/shm", home))
    return options


def _isolation(hostname: bytes, features: BwrapFeatures) -> Iterator[bytes]:
    yield from (b"--unshare-user", b"--unshare-pid", b"--unshare-ipc", b"--unshare-uts", b"--unshare-cgroup")
    for option in _OPTIONAL_OPTIONS:
        if features.has(option):
            yield option.encode()
    yield from (b"--hostname", hostname, b"--die-with-parent", b"--new-session", b"--cap-drop", b"ALL", b"--clearenv")


def _views(home: bytes, layout: GuestLayout) -> Iterator[bytes]:
    for path in (*layout.directories, b"/etc", b"/sys"):
        yield from (b"--ro-bind", path, path)
    for path, target in layout.links:
        yield from (b"--symlink", target, path)
    yield from (b"--dev", b"/dev", b"--bind", b"/dev/shm", b"/dev/shm")
    yield from (b"--bind", b"/tmp", b"/tmp", b"--bind", home, home)
    yield from (b"--ro-bind", b"/var", b"/var")


def _proc(layout: GuestLayout) -> Iterator[bytes]:
    yield from (b"--proc", b"/proc")
    for path in layout.proc_read_only:
        yield from (b"--ro-bind", path, path)
    for path in layout.proc_masked:
        yield from (b"--ro-bind", b"/dev/null", path)
    for path in layout.proc_emptied:
        yield from (b"--ro-bind", EMPTY_DIRECTORY, path)
    for path in (*_INIT_MEMORY, *_INIT_WORDS):
        yield from (b"--ro-bind", b"/dev/null", path)
    for path in _INIT_DESCRIPTORS:
        yield from (b"--ro-bind", EMPTY_DIRECTORY, path)


def plan_command(cwd: bytes, environment: Sequence[bytes]) -> tuple[bytes, ...]:
    """What comes after the walls where bubblewrap itself executes the command: `environment` is `NAME=value`. It adds PWD."""
    options = [b"--chdir", cwd]
    for word in environment:
        name, _, value = word.partition(b"=")
        options += (b"--setenv", name, value)
    return tuple(options)


_VALUES_OF = {
    b"--unshare-user": 0,
    b"--unshare-pid": 0,
    b"--unshare-ipc": 0,
    b"--unshare-uts": 0,
    b"--unshare-cgroup": 0,
    b"--disable-userns": 0,
    b"--die-with-parent": 0,
    b"--new-session": 0,
    b"--clearenv": 0,
    b"--hostname": 1,
    b"--cap-drop": 1,
    b"--bind": 2,
    b"--ro-bind": 2,
    b"--symlink": 2,
    b"--dev": 1,
    b"--proc": 1,
    b"--remount-ro": 1,
}
"""Option → how many values follow it: a value may look like an option, so they are walked, not searched."""
_MAKES_LAST_VALUE = frozenset([b"--bind", b"--ro-bind", b"--symlink", b"--dev", b"--proc", b"--remount-ro"])
"""Options whose last value is a destination."""


def refuse_writable_destinations(options: Sequence[bytes], *, writable: Sequence[bytes]) -> None:
    """Raise `SandboxSetupFailed` if an option makes anything strictly below a path the session can write.

    An option this room does not plan, and a destination that is not absolute and normal, are refused as well.
    """
    position = 0
    while position < len(options):
        option = options[position]
        values = _VALUES_OF.get(option)
        if values is None or position + values >= len(options):
            raise _refused(f"option {os.fsdecode(option)} is not one that is planned here")
        position += values + 1
        if option in _MAKES_LAST_VALUE:
            _refuse_destination(os.fsdecode(option), options[position - 1], writable)


def _refuse_destination(option: str, destination: bytes, writable: Sequence[bytes]) -> None:
    if not destination.startswith(b"/") or os.path.normpath(destination) != destination or destination[:2] == b"//":
        raise _refused(f"{option} at {destination!r} is refused: a destination is absolute and normal")
    for path in writable:
        if destination.startswith(path + b"/"):
            raise _refused(f"{option} below {path!r} is refused: a planted link there could lead it out of the sandbox")


def _refused(message: str) -> SandboxSetupFailed:
    return SandboxSetupFailed(message, stage="sandbox_setup")
