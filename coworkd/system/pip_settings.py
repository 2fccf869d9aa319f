"""Which package indexes pip is set to: its configuration files, its environment, and else what it brings along.

Order, the later wins: global files, the user's, the interpreter's own, the file of PIP_CONFIG_FILE; within them `[install]` over
`[global]`; over all of them PIP_* variables. Extra indexes and places to find links add to the index.
What is set is told as variables of pip and of uv, which knows nothing of pip's files; a host without TLS only where pip may trust it here.
Without an index in any of them it is pip's default, which nobody knows but pip: an interpreter that has it is asked.

Sources: pip's documentation, "Configuration"; uv's, "Environment variables".
"""

from __future__ import annotations

import configparser
import os
import sys

import msgspec

from coworkd.model.errors import UNDECODABLE
from coworkd.system.tool_settings import Machine, Told, Url

INTERPRETERS = ("/usr/bin/python3", sys.executable)
"""Sandboxes see the first; coworkd runs in the other."""
_DEFAULT = (
    "import json\n"
    "from pip._internal.models.index import PyPI\n"
    "print(json.dumps([PyPI.simple_url, 'https://' + PyPI.file_storage_domain]))\n"
)
_SECTIONS = ("global", "install")
_FALSE = ("", "0", "false", "no", "off", "n", "f")
_Settings = dict[str, dict[str, tuple[str, str]]]
"""Section → key → value, and who said so."""


def read_pip(machine: Machine) -> Told:
    """The URLs of every index and link page that pip would look at."""
    told = Told()
    settings: _Settings = {section: {} for section in _SECTIONS}
    for path in _files(machine):
        _read_file(machine, path, settings, told)
    merged = {**settings["global"], **settings["install"], **_from_environment(machine)}
    if "cert" in merged:
        told.note_certificates(*merged["cert"])
    for value, by in (merged[key] for key in ("find-links",) if key in merged):
        told.urls.extend(Url(word, by) for word in value.split() if "://" in word)  # others are directories
    if merged.get("no-index", ("", ""))[0].lower() not in _FALSE:
        return told
    if "index-url" in merged:
        told.add(*merged["index-url"])
        told.set(*merged["index-url"], "PIP_INDEX_URL", "UV_DEFAULT_INDEX")
    default, by = _ask_default(machine)
    if "index-url" not in merged or merged["index-url"][0].rstrip("/") in {url.rstrip("/") for url in default}:
        for url in default:  # the index, and where its files are
            told.add(url, by)
    if "index-url" not in merged and not default:
        told.notes.append("no index is set for pip, and no interpreter here has a pip to ask for its own")
    if "extra-index-url" in merged:
        value, by = merged["extra-index-url"]
        for word in value.split():
            told.add(word, by)
            told.set(word, by, "PIP_EXTRA_INDEX_URL", "UV_INDEX")
    _tell_trusted(merged, told)
    return told


def _tell_trusted(merged: dict[str, tuple[str, str]], told: Told) -> None:
    """Which indexes without TLS pip may use; of those with it no session is told to look away."""
    value, by = merged.get("trusted-host", ("", ""))
    trusted = {word.lower() for word in value.split()}
    for url in [*told.variables.get("PIP_INDEX_URL", ()), *told.variables.get("PIP_EXTRA_INDEX_URL", ())]:
        scheme, _, rest = url.text.partition("://")
        place = rest.partition("/")[0].lower()
        if scheme.lower() == "http" and trusted & {place, place.partition(":")[0]}:
            told.set(url.text, by, "PIP_TRUSTED_HOST")


def _files(machine: Machine) -> tuple[str, ...]:
    shared = (machine.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    named = machine.environ.get("PIP_CONFIG_FILE")
    own: tuple[str, ...] = ()
    if machine.home is not None and not (named and os.path.exists(f"{machine.root}{named}")):
        config = machine.environ.get("XDG_CONFIG_HOME") or f"{machine.home}/.config"
        own = (*machine.at_home(".pip/pip.conf"), f"{config}/pip/pip.conf")
    return (
        *(f"{directory}/pip/pip.conf" for directory in shared),
        "/etc/pip.conf",
        *own,
        "/usr/pip.conf",  # of the interpreter that sandboxes see: sys.prefix
        *((named,) if named else ()),
    )


def _read_file(machine: Machine, path: str, settings: _Settings, told: Told) -> None:
    text = machine.read(path, told)
    if text is None:
        return
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # Only the kind: its text quotes the line, which may hold a password.
        told.notes.append(f"{path} is not as pip wants it ({type(error).__name__}); passed over")
        return
    for section in _SECTIONS:
        if parser.has_section(section):
            given = {_normalise(key): (value, path) for key, value in parser.items(section) if value}
            settings[section].update(given)


def _from_environment(machine: Machine) -> dict[str, tuple[str, str]]:
    return {
        _normalise(name[4:]): (value, f"{name} in the environment")
        for name, value in machine.environ.items()
        if name.startswith("PIP_") and value
    }


def _normalise(key: str) -> str:
    return key.lower().replace("_", "-").removeprefix("--")


def _ask_default(machine: Machine) -> tuple[list[str], str]:
    """What a pip here goes by on its own, and who said so."""
    for python in INTERPRETERS:
        answer = machine.ask((python, "-I", "-c", _DEFAULT), {})
        if answer is None:
            continue
        try:
            return msgspec.json.decode(answer, type=list[str]), f"pip of {python}"
        except UNDECODABLE:
            continue
    return [], ""
