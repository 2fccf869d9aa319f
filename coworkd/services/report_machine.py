"""The parts of a bundle that this machine tells without coworkd: versions, units, the journal, settings, policies, the audit log.

Rules
- All of it is read, nothing changed; programs that are run have a deadline and an argv of our own.
- Whatever is of any length is bounded here.
- Only the machine that coworkd runs on is looked at: see `control_bundle`.

Sources: systemctl(1), journalctl(1), systemd.journal-fields(7), os-release(5).
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from coworkd.config import Config
from coworkd.model.errors import UNDECODABLE, Unavailable
from coworkd.services.report_part import AUDIT_RECORDS, AUDIT_SHAPE, Part, shape_of
from coworkd.services.report_proc import FILE_BYTES, NUMBERS, read
from coworkd.services.report_redact import (
    HEX,
    VERSION,
    WORD,
    Rule,
    each,
    form,
    mapping,
    name,
    number,
    prose,
    record,
    tree,
)
from coworkd.system.manager_times import parse_records

UNITS = ("coworkd.service", "coworkd-launcher.service", "coworkd-egress.service", "coworkd-firewall.service")
PACKAGES = (
    "trio",
    "msgpack",
    "msgspec",
    "psutil",
    "pyroute2",
    "python-prctl",
    "pyseccomp",
    "h11",
    "cryptography",
    "idna",
)
PROGRAM_S = 10.0
JOURNAL_LINES = 1000

_PROPERTIES = (
    *("ActiveState", "SubState", "Result", "NRestarts", "ExecMainCode", "ExecMainStatus", "MainPID", "MemoryCurrent"),
    *("TasksCurrent", "OOMPolicy", "ActiveEnterTimestampMonotonic", "InactiveEnterTimestampMonotonic"),
    *("WatchdogTimestampMonotonic", "StatusErrno", "StatusText"),
)
_SENTENCE = record(dict.fromkeys(("unit", "at_s"), prose) | {"message": prose, "priority": prose})

_VERSIONS: Rule = record(
    {
        "kernel": form(VERSION),
        "machine": form(VERSION),
        "python": form(VERSION),
        "coworkd": form(VERSION),
        "bubblewrap": form(VERSION),
        "systemd": form(VERSION),
        "system": record({"ID": form(WORD), "VERSION_ID": form(VERSION)}),
        "packages": mapping(form(WORD), form(VERSION)),
        "processors": number,
        "load": each(number),
        "memory_kb": mapping(form(re.compile(r"[A-Za-z_()]{1,30}\Z")), number),
        "pressure": mapping(form(WORD), form(NUMBERS)),
    }
)


def parts_of_machine(config: Config, *, audit: bool) -> Iterator[Part]:
    """What can be looked at here. `audit`: the log as well, because coworkd does not tell of it."""
    yield Part("homes.json", "the directory of homes", lambda: _homes(config), each(name))
    yield Part("versions.json", "this machine", _versions, _VERSIONS)
    yield Part("health.json", "the health port", lambda: _health(config), tree)
    yield Part("units.json", "systemctl show", _units, mapping(form(VERSION), mapping(form(VERSION), prose)))
    yield Part("journal.json", "journalctl", _journal, each(_SENTENCE))
    yield Part("config.json", "coworkd.toml", lambda: msgspec.to_builtins(config), tree)
    policy = record({"layer": form(WORD), "kind": prose, "name": prose, "bytes": number, "sha256": form(HEX)})
    yield Part("policies.json", "the policy directories", lambda: _policies(config), each(policy))
    if audit:
        yield Part("audit.json", "the files of the log", lambda: _audit(config), AUDIT_SHAPE)


def find_pids() -> dict[str, int]:
    """The main processes of our units, where systemd runs them."""
    try:
        units = _units()
    except OSError:
        return {}
    names = {"coworkd.service": "coworkd", "coworkd-launcher.service": "launcher", "coworkd-egress.service": "egress"}
    return {
        names[unit]: int(shown["MainPID"])
        for unit, shown in units.items()
        if unit in names and int(shown.get("MainPID") or 0)
    }


def _homes(config: Config) -> list[str]:
    return sorted(entry for entry in os.listdir(config.sessions_dir) if not entry.startswith("."))[:10_000]


def _versions() -> dict[str, Any]:
    from coworkd import __version__

    kernel = os.uname()
    return {
        "kernel": kernel.release,
        "machine": kernel.machine,
        "python": platform.python_version(),
        "coworkd": __version__,
        "bubblewrap": _last_word(["bwrap", "--version"]),
        "systemd": _last_word(["systemctl", "--version"], at=1),
        "system": _os_release(),
        "packages": {package: found for package in PACKAGES if (found := _package(package)) is not None},
        "processors": os.cpu_count(),
        "load": list(os.getloadavg()),
        "memory_kb": _memory(),
        "pressure": {
            what: read(f"/proc/pressure/{what}")
            for what in ("cpu", "memory", "io")
            if os.path.exists(f"/proc/pressure/{what}")
        },
    }


def _package(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _os_release() -> dict[str, str]:
    lines = (line.partition("=") for line in read("/etc/os-release").splitlines())
    return {key: value.strip('"') for key, _, value in lines if key in ("ID", "VERSION_ID")}


def _memory() -> dict[str, int]:
    rows = (line.split() for line in read("/proc/meminfo").splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) >= 2}


def _health(config: Config) -> dict[str, Any]:
    """What the threads of the health port say, whether the loop turns or not."""
    paths = [uri.removeprefix("unix://") for uri in config.health.endpoints if uri.startswith("unix://")]
    if not paths:
        raise Unavailable("health.endpoints has no unix socket")
    return {path: _ask_health(paths[0], path) for path in ("/live", "/ready")}


def _ask_health(path: str, what: str) -> Any:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PROGRAM_S)
        client.connect(path)
        client.sendall(f"GET {what} HTTP/1.0\r\n\r\n".encode())
        found = b""
        while len(found) < FILE_BYTES and (data := client.recv(4096)):
            found += data
    try:
        return msgspec.json.decode(found.partition(b"\r\n\r\n")[2])
    except UNDECODABLE as error:
        raise OSError(errno.EPROTO, "the health port has answered with something else") from error


def _units() -> dict[str, dict[str, str]]:
    text = _run(["systemctl", "show", f"--property={','.join(('Id', *_PROPERTIES))}", *UNITS])
    return {shown.pop("Id", "?"): shown for shown in parse_records(text)}


def _journal() -> list[dict[str, Any]]:
    units = [f"--unit={unit}" for unit in UNITS]
    text = _run(["journalctl", "--boot", "--no-pager", "--output=json", f"--lines={JOURNAL_LINES}", *units])
    return [_journal_line(line) for line in text.splitlines() if line.startswith("{")]


def _journal_line(line: str) -> dict[str, Any]:
    try:
        entry = msgspec.json.decode(line, type=dict[str, Any])
    except UNDECODABLE:
        return {"message": "unreadable"}
    at_us = str(entry.get("__MONOTONIC_TIMESTAMP", ""))
    return {
        "unit": entry.get("_SYSTEMD_UNIT") or entry.get("UNIT"),
        "at_s": int(at_us) / 1_000_000 if at_us.isdecimal() else None,
        "priority": entry.get("PRIORITY"),
        "message": entry.get("MESSAGE"),
    }


def _policies(config: Config) -> list[dict[str, Any]]:
    found = []
    for layer, directory in zip(("vendor", "admin"), config.policy_dirs, strict=True):
        for path in sorted(Path(directory).glob("*/*"))[:500] if os.path.isdir(directory) else ():
            if not path.is_file():  # a FIFO would wait for ever
                continue
            data = path.read_bytes()
            found.append(
                {
                    "layer": layer,
                    "kind": path.parent.name,
                    "name": path.stem,
                    "bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
            )
    return found


def _audit(config: Config) -> dict[str, Any]:
    from coworkd.auditlog import Filter, tail, verify
    from coworkd.auditlog.rotation import log_files

    directory = Path(config.state_dir) / "audit"
    files = [directory / name for name in log_files(os.listdir(directory))]
    verdict = verify((path.name, [path.read_bytes()]) for path in files)
    newest = (line for path in reversed(files) for line in reversed(path.read_bytes().splitlines(keepends=True)))
    records, _ = tail(newest, Filter(), limit=AUDIT_RECORDS, limit_bytes=1 << 22)
    verified = {**msgspec.to_builtins(verdict), "ok": verdict.problem is None}
    return shape_of(records, verified)


def _last_word(argv: Sequence[str], at: int = -1) -> str | None:
    try:
        return (_run(argv).split("\n")[0].split() or [None])[at]  # type: ignore[list-item]
    except (OSError, IndexError):
        return None


def _run(argv: Sequence[str]) -> str:
    """What a program prints. Raises `OSError` where it is not there, fails or hangs."""
    program = shutil.which(argv[0])
    if program is None:
        raise OSError(errno.ENOENT, f"there is no {argv[0]} here")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_S,
            check=False,
            env=environment,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"{argv[0]} does not answer") from error
    if done.returncode != 0:
        raise OSError(errno.EIO, f"{argv[0]} has failed: {done.stderr.strip()[:200]}")
    return done.stdout
