"""Other ways to run one command in a sandbox, each where it is installed; none is needed.

Each is set up to wall off as much of what ours does as it can: own user, pid, mount, ipc, uts and network namespaces, no
capability, no_new_privs, a seccomp filter, a read-only /usr. What it leaves out is said in `lacks`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.bench.guest import ROOT
from tests.bench.spawning import COMMAND, Contestant
from tests.bench.timer import open_timer

MAPPED_ID = 100_000
TIMEOUT_S = 30
INSTALL_S = 120
LIBRARY = "@anthropic-ai/sandbox-runtime"
LIBRARY_VERSION = "0.0"
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


class Other(Struct, frozen=True, kw_only=True):
    """A contestant: `open_` gives it, or raises `NotInstalled`; `slow` ones get fewer rounds."""

    name: str
    lacks: str
    slow: bool
    open_: Callable[[Path], contextlib.AbstractContextManager[Contestant]]


class NotInstalled(Exception):
    """It is not on this machine; says what is missing."""


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise NotInstalled(f"not installed: {', '.join(missing)}")


# -- one opener each ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_crun(directory: Path) -> Iterator[Contestant]:
    need("crun")
    bundle = directory / "crun"
    root = bundle / "rootfs"
    for name in ("usr", "etc", "proc", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        source = Path("/", name)
        if source.is_symlink():
            (root / name).symlink_to(os.readlink(source))
    (bundle / "config.json").write_text(json.dumps(oci_config()))
    # The container's user has to reach its root through these.
    for path in (directory, bundle, root):
        path.chmod(0o755)
    state = directory / "crun-state"
    command = ["crun", "--root", str(state), "--cgroup-manager=disabled", "run", "-b", str(bundle), "bench"]
    with open_timer(command, without_unified=True) as timer:
        yield timer.run


def oci_config() -> dict[str, Any]:
    """A runtime-spec bundle with about our walls; its filter is our admin filter's file."""
    mapping = [{"containerID": 0, "hostID": MAPPED_ID, "size": 1}]
    bound = ["bind", "ro", "nosuid", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [COMMAND],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=64m"]},
            {"destination": "/usr", "type": "none", "source": "/usr", "options": bound},
            {"destination": "/etc", "type": "none", "source": "/etc", "options": bound},
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("user", "pid", "mount", "ipc", "uts", "network")],
            "uidMappings": mapping,
            "gidMappings": mapping,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": _runtime_filter(),
        },
    }


def _runtime_filter() -> dict[str, Any]:
    """Our admin filter without the keys that container engines resolve before a runtime sees the file."""
    profile = json.loads((ROOT / "policies" / "seccomp" / "default.json").read_text())
    plain = ("names", "action", "args", "errnoRet")
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": [_ARCHITECTURES[platform.machine()]],
        "syscalls": [
            {key: rule[key] for key in plain if rule.get(key)}
            for rule in profile["syscalls"]
            if not rule.get("includes") and not rule.get("excludes")
        ],
    }


@contextlib.contextmanager
def open_firejail(_: Path) -> Iterator[Contestant]:
    need("firejail")
    options = ["--quiet", "--noprofile", "--net=none", "--caps.drop=all", "--nonewprivs", "--seccomp"]
    options += ["--private", "--private-dev", "--private-tmp", "--ipc-namespace"]
    with open_timer(["firejail", *options, "--", COMMAND]) as timer:
        yield timer.run


@contextlib.contextmanager
def open_nspawn(_: Path) -> Iterator[Contestant]:
    need("systemd-nspawn")
    options = ["--quiet", "--volatile=yes", "--directory=/", "--private-network", "--register=no", "--keep-unit"]
    options += ["--as-pid2", f"--machine=bench-{os.getpid()}", "--no-new-privileges=yes"]
    with open_timer(["systemd-nspawn", *options, COMMAND]) as timer:
        yield timer.run


@contextlib.contextmanager
def open_runtime_cli(directory: Path) -> Iterator[Contestant]:
    library = install_library()
    settings = _write_settings(directory)
    cli = str(library / "dist" / "cli.js")
    with open_timer(["node", cli, "--settings", str(settings), "-c", COMMAND]) as timer:
        yield timer.run


@contextlib.contextmanager
def open_runtime_library(directory: Path) -> Iterator[Contestant]:
    library = install_library()
    script = str(ROOT / "tests" / "bench" / "library_peer.mjs")
    command = ["node", script, str(library), str(_write_settings(directory)), COMMAND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=directory) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def run() -> float:
            stdin.write(b"run\n")
            stdin.flush()
            return float(stdout.readline())

        yield run
        stdin.close()
        child.wait(TIMEOUT_S)


def _write_settings(directory: Path) -> Path:
    path = directory / "srt-settings.json"
    network: dict[str, list[str]] = {"allowedDomains": [], "deniedDomains": []}
    filesystem: dict[str, list[str]] = {"denyRead": [], "allowWrite": ["."], "denyWrite": []}
    path.write_text(json.dumps({"network": network, "filesystem": filesystem}))
    return path


def install_library() -> Path:
    """The library's directory in our cache, installed by npm where it is not there yet. Raises `NotInstalled`."""
    need("node", "npm", "socat", "rg")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coworkd-bench"
    library = cache / "node_modules" / LIBRARY
    if not (library / "dist" / "cli.js").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(cache)]
        try:
            subprocess.run(
                ["npm", "install", *options, f"{LIBRARY}@{LIBRARY_VERSION}"],
                check=True,
                capture_output=True,
                timeout=INSTALL_S,
            )
        except subprocess.SubprocessError as error:
            raise NotInstalled(f"npm could not install {LIBRARY}") from error
    return library


OTHERS = (
    Other(name="crun", lacks="one filter, no session, nothing kept", slow=False, open_=open_crun),
    Other(name="firejail", lacks="as root, no user namespace", slow=False, open_=open_firejail),
    Other(name="systemd-nspawn", lacks="no user namespace, keeps capabilities inside", slow=True, open_=open_nspawn),
    Other(name="sandbox-runtime, CLI", lacks="no ipc, uts, cgroup namespaces", slow=True, open_=open_runtime_cli),
    Other(
        name="sandbox-runtime, library", lacks="no ipc, uts, cgroup namespaces", slow=True, open_=open_runtime_library
    ),
)
