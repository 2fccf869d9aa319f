"""Presets: what `python`, `node`, `debian` and `ubuntu` mean on this machine, resolved once and kept in a file.

The package indexes of these ecosystems stand in no file of ours: they are what pip, npm and apt are set to here, so that a mirror in
use is the one allowed. `resolve_presets` asks them (blocking, a few seconds), `write_presets` keeps the answer for coworkd.

File, as `netpolicy.presets` reads it:

    {"format": 1, "made_at": EPOCH, "presets": {"python": {
        "hosts": ["index.example"], "from": ["/etc/pip.conf"], "env": {"PIP_INDEX_URL": "https://index.example/simple"}}}}

`env` is there where a tool was set to a mirror by somebody: sessions see none of its files, and its default would not be allowed.

Rules
- For `hosts`, of a URL only the host is taken, and the port where it is not the scheme's own: never a path, a user or a password.
- For `env` a URL is taken as it is or not at all: one that holds a secret, or leads where the preset does not, is told to no session.
- What no pattern can name is passed over and told; nothing is guessed, nothing is widened.
- A preset that came to nothing is not in the file: it allows nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from msgspec import Struct

from coworkd.model.errors import DiskFailed
from coworkd.netpolicy.hosts import BadHost, canonical_host
from coworkd.netpolicy.preset_variables import MAX_VALUE_LENGTH, SEPARATOR, VARIABLES, refuse_index, refuse_variable
from coworkd.netpolicy.presets import FORMAT, PresetTable, ResolvedPreset
from coworkd.system.apt_settings import read_apt, read_distribution
from coworkd.system.npm_settings import read_npm
from coworkd.system.pip_settings import read_pip
from coworkd.system.tool_settings import Machine, Told, this_machine

MAX_HOSTS = 64
"""More is no configuration of a package manager."""
DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
"""Of the schemes that lead to a network; others (a directory of files) need no way out."""
_FILE_MODE = 0o644
_REMEDY = "`coworkctl session ensure --env` tells the sessions that may know it"


class ResolvedPresets(Struct, frozen=True, kw_only=True):
    """What was resolved. `notes` are for people: what was passed over, and why."""

    table: PresetTable
    notes: tuple[str, ...] = ()


def resolve_presets(machine: Machine | None = None, *, clock: Callable[[], float] = time.time) -> ResolvedPresets:
    """Ask pip, npm and apt of this machine."""
    asked = this_machine() if machine is None else machine
    found = {"python": read_pip(asked), "node": read_npm(asked)}
    distribution = read_distribution(asked)
    notes: list[str] = []
    if distribution is None:
        notes.append("debian, ubuntu: this system is neither")
    else:
        found[distribution] = read_apt(asked)
    presets: dict[str, ResolvedPreset] = {}
    for name, told in found.items():
        made, passed_over = _compose_preset(name, told)
        if made is not None:
            presets[name] = made
        notes.extend(f"{name}: {note}" for note in (*told.notes, *passed_over))
    return ResolvedPresets(table=PresetTable(made_at=clock(), presets=presets), notes=tuple(notes))


def compose_pattern(url: str) -> str | None:
    """`HOST` or `HOST:PORT` of a URL, as in `allowedDomains`; None for what no pattern can name."""
    try:
        parts = urlsplit(url)
        host, port = canonical_host(parts.hostname or ""), parts.port
    except (ValueError, BadHost):
        return None
    if port is None or port == DEFAULT_PORTS.get(parts.scheme):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def compose_file(table: PresetTable) -> bytes:
    """The file's content; see the top of this module."""
    presets = {
        name: {"hosts": list(one.hosts), "from": list(one.said_by), **({"env": dict(one.env)} if one.env else {})}
        for name, one in table.presets.items()
    }
    return json.dumps({"format": FORMAT, "made_at": table.made_at, "presets": presets}, indent=2).encode() + b"\n"


def write_presets(path: str, table: PresetTable) -> None:
    """Put the file in place as a whole, its directories made; whoever reads it sees the old or the new. Raises `DiskFailed`."""
    directory = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".presets.", delete=False) as file:
            try:
                file.write(compose_file(table))
                file.flush()
                os.fchmod(file.fileno(), _FILE_MODE)
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise DiskFailed(f"{path} cannot be written: {error.strerror}", path=path, errno=error.errno) from error


def _compose_preset(name: str, told: Told) -> tuple[ResolvedPreset | None, list[str]]:
    """A preset, or None where nothing is left; and what was passed over."""
    hosts: dict[str, None] = {}
    said_by: dict[str, None] = {}
    notes: list[str] = []
    for url in told.urls:
        if url.text.partition(":")[0].lower() not in DEFAULT_PORTS:
            continue
        pattern = compose_pattern(url.text)
        if pattern is None:
            notes.append(f"{url.said_by}: a host that no pattern can name is passed over")
            continue
        if pattern not in hosts and len(hosts) == MAX_HOSTS:
            notes.append(f"{url.said_by}: more than {MAX_HOSTS} hosts; the others are passed over")
            break
        hosts[pattern] = said_by[url.said_by] = None
    if not hosts:
        return None, notes
    env, kept_back = _compose_env(name, told, hosts)
    return ResolvedPreset(hosts=tuple(hosts), said_by=tuple(said_by), env=env), [*notes, *kept_back]


def _compose_env(preset: str, told: Told, hosts: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The variables for sessions, and which indexes they are not told of."""
    env: dict[str, str] = {}
    notes: dict[str, None] = {}
    for variable, urls in told.variables.items():
        kind = VARIABLES[preset][variable]
        words: dict[str, None] = {}
        for url in urls[:1] if kind == "url" else urls:
            if url.text.partition(":")[0].lower() not in ("http", "https"):
                continue  # a directory of this machine
            wrong = refuse_index(url.text)
            if wrong is None and compose_pattern(url.text) not in hosts:
                wrong = "leads where the preset does not"
            if wrong is not None:
                notes[f"{url.said_by}: sessions are not told of an index that {wrong}; {_REMEDY}"] = None
                continue
            words[urlsplit(url.text).netloc if kind == "hosts" else url.text] = None
        value = SEPARATOR.join(words)
        if len(value) > MAX_VALUE_LENGTH:
            notes[f"{variable} would have more than {MAX_VALUE_LENGTH} characters; sessions are not told of it"] = None
        elif words and refuse_variable(preset, variable, value) is None:
            env[variable] = value
    return env, list(notes)
