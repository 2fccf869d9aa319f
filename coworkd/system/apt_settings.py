"""Which mirrors apt is set to, and which distribution this is.

`/etc/apt/sources.list` and `*.list` beside it hold a source a line, `TYPE [OPTIONS] URI SUITE …`; `*.sources` hold stanzas with
`URIs:`, of which one with `Enabled: no` counts for nothing. `mirror+file:/PATH` names a list of mirrors, a URI a line. What is
fetched from no network (cdrom, file, copy) is passed over.

Sources: sources.list(5), apt-transport-mirror(1), os-release(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from coworkd.system.tool_settings import Machine, Told

SOURCES = "/etc/apt/sources.list"
SOURCES_DIRECTORY = "/etc/apt/sources.list.d"
DISTRIBUTIONS = ("debian", "ubuntu")
_NETWORK = ("http", "https", "ftp")
_LINE = re.compile(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)")
_FIELD = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9-]*)\s*:(?P<value>.*)")
_DISABLED = ("no", "false", "without", "off", "disable", "0")
_OS_FILES = ("/etc/os-release", "/usr/lib/os-release")


def read_apt(machine: Machine) -> Told:
    """The URLs of every mirror that apt would fetch from."""
    told = Told()
    for uri in _one_line(machine.read(SOURCES, told) or ""):
        _follow(machine, uri, SOURCES, told)
    for path in machine.list(SOURCES_DIRECTORY, told):
        if path.endswith(".list"):
            uris = _one_line(machine.read(path, told) or "")
        elif path.endswith(".sources"):
            uris = _stanzas(machine.read(path, told) or "")
        else:
            continue  # as apt does
        for uri in uris:
            _follow(machine, uri, path, told)
    if not told.urls:
        told.notes.append(f"apt has no source on a network in {SOURCES} and {SOURCES_DIRECTORY}")
    return told


def read_distribution(machine: Machine) -> str | None:
    """`debian` or `ubuntu`: this system itself, or what it says it is like; None for another."""
    told = Told()
    text = next((found for path in _OS_FILES if (found := machine.read(path, told)) is not None), "")
    said: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            said[name.strip()] = value.strip().strip("\"'")
    names = [said.get("ID", ""), *said.get("ID_LIKE", "").split()]
    return next((name for name in names if name in DISTRIBUTIONS), None)


def _one_line(text: str) -> Iterator[str]:
    for line in text.splitlines():
        match = _LINE.match(line.partition("#")[0])
        if match:
            yield match["uri"]


def _stanzas(text: str) -> Iterator[str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in "\n".join(line.rstrip() for line in lines).split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            match = _FIELD.match(line)
            if match:
                name = match["name"].lower()
                fields[name] = match["value"]
            elif name and line[:1].isspace():
                fields[name] += f" {line}"
        if fields.get("enabled", "yes").strip().lower() not in _DISABLED:
            yield from fields.get("uris", "").split()


def _follow(machine: Machine, uri: str, said_by: str, told: Told) -> None:
    scheme, colon, rest = uri.partition(":")
    last = scheme.lower().rpartition("+")[2]
    if not colon or last in ("file", "copy", "cdrom", "mirror"):
        if scheme.lower().startswith("mirror"):
            _follow_list(machine, "/" + rest.lstrip("/"), scheme, uri, said_by, told)
    elif last in _NETWORK:
        told.add(f"{last}:{rest}", said_by)
    else:
        told.notes.append(f"{said_by}: a source by {scheme[:20]!a} is passed over: no preset can name it")


def _follow_list(machine: Machine, path: str, scheme: str, uri: str, said_by: str, told: Told) -> None:
    """The mirrors in a list on this machine; of a list that is fetched, where it is fetched from."""
    if scheme.lower() == "mirror":  # the old way of writing mirror+http
        told.add(f"http:{uri.partition(':')[2]}", said_by)
        return
    for line in (machine.read(path, told) or "").splitlines():
        words = line.partition("#")[0].split()
        if words and words[0].partition(":")[0].lower() in _NETWORK:
            told.add(words[0], path)
