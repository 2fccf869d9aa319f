"""coworkd: `serve` for a guest under systemd, `local` for one directory on this machine. argv and exit codes only.

Exit codes: 0 after a wanted end, 1 for a start that failed (with the reason and a remedy), 2 for words it does not know.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from coworkd.system import without_openssl  # noqa: F401 - before trio

# isort: split

import trio
from msgspec import structs

from coworkd import __version__
from coworkd.bring_up import Connects
from coworkd.cli.egress_start import ensure_egress
from coworkd.cli.launcher_start import ensure_launcher
from coworkd.cli.program_start import LINGER_S
from coworkd.config import Config, HealthConfig, StorageConfig, load_config
from coworkd.lifetime import serve
from coworkd.model.errors import CoworkError, InvalidParams
from coworkd.services.logs import LogService
from coworkd.settings import BadValue
from coworkd.settings.values import size
from coworkd.system.cgroup import choose_own
from coworkd.system.descriptors import raise_descriptor_limit
from coworkd.system.guest import read_bwrap_features
from coworkd.system.heap import keep_one_arena
from coworkd.system.supervised import PATH_LIMIT_BYTES
from coworkd.unit import Unit

DIAL_WORD, DIALLED = "coworkd.dial=1", "vsock://2:5007"
LEAST_LOOP_BYTES = 16 * 1024 * 1024
_PRIORITY = -5
"""coworkd's nice value: it answers while commands burn every core. The launcher takes the same; a command has 0."""


def main(argv: list[str] | None = None) -> int:
    """The `coworkd` program."""
    arguments = build_parser().parse_args(argv)
    if os.geteuid() != 0:
        print("coworkd: root is needed to make users, mounts and namespaces; start it with sudo", file=sys.stderr)
        return 1
    try:
        return int(arguments.run(arguments))
    except Exception as error:  # noqa: BLE001 - the outermost boundary: told in words, and the start has failed
        for leaf in _leaves(error):
            print(f"coworkd: {_explain(leaf)}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser, also for the test of the documents' command lines."""
    parser = argparse.ArgumentParser(prog="coworkd", description="The guest side of a local agent sandbox.")
    parser.add_argument("--version", action="version", version=f"coworkd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve a guest; the launcher runs as a unit of its own")
    serve.add_argument("--config", metavar="F", help="the configuration (default: /etc/coworkd/coworkd.toml if there)")
    serve.set_defaults(run=_serve)
    local = commands.add_parser("local", help="serve one directory of this machine, in the foreground")
    local.add_argument("--state", metavar="DIR", required=True, help="homes, records and the audit log")
    local.add_argument("--socket", metavar="PATH", required=True, help="the socket to listen on")
    local.add_argument(
        "--disk",
        metavar="FILE[:SIZE]",
        type=parse_disk,
        help="keep it all on an ext4 in FILE, made and grown to SIZE (10G)",
    )
    local.add_argument("--keep", action="store_true", help="the launcher waits for ever for a supervisor to come back")
    local.add_argument("--policies", metavar="DIR", help="the admin's policies, above those that came with coworkd")
    local.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    local.set_defaults(run=_local)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    config = add_dialled(load_config(arguments.config), Path("/proc/cmdline").read_text())
    connects = Connects(
        launcher=partial(_connect, lambda: config.launcher_socket),
        egress=partial(_connect, lambda: config.egress_socket),
    )
    return _run(config, "serve", connects, lambda: None, unit=Unit.of_environment())


def add_dialled(config: Config, command_line: str) -> Config:
    """The host may ask by the kernel's command line to be dialled as well, where it cannot connect to us."""
    if DIAL_WORD not in command_line.split() or DIALLED in config.endpoints:
        return config
    return structs.replace(config, endpoints=(*config.endpoints, DIALLED))


def _local(arguments: argparse.Namespace) -> int:
    config = compose_local_config(
        state=arguments.state,
        socket=arguments.socket,
        policies=arguments.policies,
        log_level=arguments.log_level,
        disk=arguments.disk,
    )
    linger_s = None if arguments.keep else LINGER_S
    return run_local(config, linger_s=linger_s, ready=lambda: print(f"ready {config.endpoints[0]}", flush=True))


def parse_disk(text: str) -> StorageConfig:
    """The loop disk that `--disk` means; a colon without a size behind it belongs to the file's name. Raises `ArgumentTypeError`."""
    path, colon, size_text = text.rpartition(":")
    if not colon or "/" in size_text:
        path, size_text = text, ""
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not FILE or FILE:SIZE")
    chosen = StorageConfig(kind="loop", loop_file=os.path.abspath(path))
    if not size_text:
        return chosen
    try:
        return structs.replace(chosen, loop_size=size(LEAST_LOOP_BYTES)(size_text))
    except BadValue as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def compose_local_config(
    *,
    state: str,
    socket: str,
    policies: str | None = None,
    log_level: str = "info",
    disk: StorageConfig | None = None,
) -> Config:
    """The configuration of an embedded coworkd on the directory `state`.

    All of it lies in there, below `.coworkd` what is no home. With a disk that is mounted on `state`/sessions, and what must be there
    before it is (`run`, `cache`) lies beside.
    """
    state = os.path.realpath(state)
    sessions_dir = state if disk is None else os.path.join(state, "sessions")
    own = os.path.join(sessions_dir, ".coworkd")
    beside = own if disk is None else state
    config = Config(
        state_dir=own,
        sessions_dir=sessions_dir,
        endpoints=(f"unix://{os.path.abspath(socket)}",),
        launcher_socket=os.path.join(beside, "run", "launcher.sock"),
        egress_socket=os.path.join(beside, "run", "egress.sock"),
        health=HealthConfig(endpoints=(f"unix://{os.path.join(beside, 'run', 'health.sock')}",)),
        cache_dir=os.path.join(beside, "cache"),
        storage=disk or StorageConfig(kind="directory"),
    )
    config = structs.replace(config, log=structs.replace(config.log, level=log_level))
    return structs.replace(config, admin_policies=os.path.abspath(policies)) if policies else config


def run_local(config: Config, *, linger_s: float | None, ready: Callable[[], None]) -> int:
    """Serve in the foreground with a launcher and a coworkd-egress of one's own. Raises `InvalidParams` for a state directory whose
    path is too long for their sockets.
    """
    runtime_dir = os.path.dirname(config.launcher_socket)
    over_bytes = len(os.fsencode(config.launcher_socket)) - PATH_LIMIT_BYTES
    if over_bytes > 0:
        raise InvalidParams(
            f"the path of {runtime_dir} is {over_bytes} bytes too long for sockets in it (unix(7)); choose a shorter state directory",
            key="state",
        )
    for directory in (config.sessions_dir, runtime_dir):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    bubblewrap = read_bwrap_features().path
    cgroup = choose_own(f"coworkd-{os.stat(runtime_dir).st_ino:x}")
    start = partial(ensure_launcher, runtime_dir=runtime_dir, bubblewrap=bubblewrap, cgroup=cgroup, linger_s=linger_s)
    start_egress = partial(ensure_egress, runtime_dir=runtime_dir, linger_s=linger_s)
    connects = Connects(launcher=partial(_connect, start), egress=partial(_connect, start_egress))
    return _run(config, "local", connects, ready)


def _run(config: Config, mode: str, connects: Connects, ready: Callable[[], None], *, unit: Unit | None = None) -> int:
    # Each ended command that is kept holds two; 1024 of them, and the links, must find room.
    raise_descriptor_limit()
    keep_one_arena()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    logs = LogService(level=config.log.level, file=Path(config.log.file) if config.log.file else None)
    try:
        serving = partial(serve, config, connects=connects, logs=logs, ready=ready, unit=unit)
        trio.run(partial(serving, mode="serve" if mode == "serve" else "local"))
    finally:
        logs.close()
    return 0


async def _connect(find: Callable[[], str]) -> trio.socket.SocketType:
    path = await trio.to_thread.run_sync(find)
    connecting = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_SEQPACKET)
    try:
        await connecting.connect(path)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _leaves(error: BaseException) -> list[BaseException]:
    """An exception group's members, however deep; the group types are builtins only from Python 3.11 on."""
    members = getattr(error, "exceptions", None)
    return [error] if members is None else [leaf for member in members for leaf in _leaves(member)]


def _explain(error: BaseException) -> str:
    if isinstance(error, CoworkError):
        return error.message
    return str(error) if isinstance(error, OSError) else "".join(traceback.format_exception(error)).rstrip()
