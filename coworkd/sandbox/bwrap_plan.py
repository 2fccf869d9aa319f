"""bubblewrap's options for one command, in the order bubblewrap applies them.

Rules
- Only options the installed bubblewrap names in its help are given; one that protects and is missing is a refusal, unless another layer
  holds the same wall (`--disable-userns`: the base filter refuses new user namespaces as well).
- No destination below something the session can write (CVE-2026-87766): every destination is in `_DESTINATIONS_OF` or checked by
  `refuse_writable_destinations`.
- `--remount-ro` of /dev and / come last: what comes after them could not be made.
Source: bwrap(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
    "--args",
    "--remount-ro",
    "--hostname",
)
_OPTIONAL_OPTIONS = ("--disable-userns",)
EMPTY_DIRECTORY = b"/var/empty"


def plan_bwrap(
    *,
    home: bytes,
    hostname: bytes,
    environment: Mapping[str, str],
    cwd: bytes,
    layout: GuestLayout,
    features: BwrapFeatures,
) -> tuple[bytes, ...]:
    """Everything for `--args`, but the filters and the status pipe. Raises `SandboxSetupFailed` where an option is missing."""
    missing = [option for option in REQUIRED_OPTIONS if not features.has(option)]
    if missing:
        raise SandboxSetupFailed(
            f"bubblewrap {features.version} lacks {', '.join(missing)}: install 0.6.1 or newer", stage="sandbox_setup"
        )
    options = (
        *_isolation(hostname, features),
        *_views(home, layout),
        *_proc(layout),
        b"--remount-ro",
        b"/dev",
        b"--remount-ro",
        b"/",
        b"--chdir",
        cwd,
        *_environment(environment),
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


def _environment(environment: Mapping[str, str]) -> Iterator[bytes]:
    for name, value in environment.items():
        yield from (b"--setenv", name.encode(), value.encode())


_DESTINATION_AT = {
    b"--bind": 2,
    b"--ro-bind": 2,
    b"--dev-bind": 2,
    b"--symlink": 2,
    b"--dir": 1,
    b"--tmpfs": 1,
    b"--dev": 1,
    b"--proc": 1,
    b"--file": 2,
    b"--remount-ro": 1,
}


def refuse_writable_destinations(options: Sequence[bytes], *, writable: Sequence[bytes]) -> None:
    """Raise `SandboxSetupFailed` if an option makes anything strictly below a path the session can write."""
    for position, option in enumerate(options):
        if option not in _DESTINATION_AT:
            continue
        destination = options[position + _DESTINATION_AT[option]]
        for path in writable:
            if destination.startswith(path + b"/") and destination != path:
                raise SandboxSetupFailed(
                    f"{option.decode()} below {path!r} is refused: a planted link there could lead it out of the sandbox",
                    stage="sandbox_setup",
                )
