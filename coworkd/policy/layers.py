"""Layers: the files of one policy directory, and which file of which layer counts.

Layout of a layer

    ceiling.toml
    profiles/NAME.toml      ours
    seccomp/NAME.json       OCI seccomp
    egress/NAME.json        srt-settings

Invariants: layers are ordered, the lowest (vendor) first; a file that is none of these is a mistake and not passed over,
because a misspelt `ceiling.toml` that nobody reads would be a ceiling that is not there. What package managers and
editors leave behind, hidden files and texts to read (`README`, `*.md`) are passed over.

Does no I/O: who reads a directory makes a `Layer` of it (`services.policies.read_layer`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from coworkd.settings import Finding
from coworkd.settings.findings import did_you_mean

CEILING = "ceiling.toml"
FOLDERS = {"profiles": ".toml", "seccomp": ".json", "egress": ".json"}
_PASSED_OVER = re.compile(r"\.|.*(~|\.dpkg-\w+|\.ucf-\w+|\.rpmsave|\.rpmnew|\.bak|\.md)\Z|README")
_STEM = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


class PolicyFile(Struct, frozen=True, kw_only=True):
    """One file: `file` is its path, for people; `name` what others call it by."""

    name: str
    file: str
    data: bytes


class Layer(Struct, frozen=True, kw_only=True):
    """One directory: its path, and the bytes of every file by path below it (`profiles/default.toml`)."""

    root: str
    files: Mapping[str, bytes]


def is_passed_over(file_name: str) -> bool:
    """Whether a file or directory of this name is nothing to do with policies."""
    return _PASSED_OVER.match(file_name) is not None


def find_strays(layer: Layer) -> list[Finding]:
    """A finding for every file that no rule of the layout would read."""
    strays = []
    for path in sorted(layer.files):
        message, close = _judge(path)
        if message:
            file = f"{layer.root}/{path}"
            strays.append(Finding(file=file, line=1, key="", message=message, nearest=close))
    return strays


def _judge(path: str) -> tuple[str, str | None]:
    if path == CEILING:
        return "", None
    folder, slash, file_name = path.partition("/")
    if not slash:
        hint, close = did_you_mean(path, [CEILING])
        return f"is read by nobody here{hint}", close
    if folder not in FOLDERS or "/" in file_name:
        hint, close = did_you_mean(folder, FOLDERS) if folder not in FOLDERS else ("", None)
        return f"lies where nobody reads: there are {', '.join(FOLDERS)} and no folders below{hint}", close
    ending = FOLDERS[folder]
    stem = file_name.removesuffix(ending)
    if stem == file_name:
        return f"is not read: files of {folder}/ end in {ending}", None
    if not _STEM.match(stem):
        return "has a name nobody can refer to: 1 to 64 of a-z, 0-9, '.', '_' and '-'", None
    return "", None


def collect(layers: Sequence[Layer], folder: str) -> dict[str, list[PolicyFile]]:
    """Name → the files of that name in `folder`, the lowest layer's first."""
    ending = FOLDERS[folder]
    found: dict[str, list[PolicyFile]] = {}
    for layer in layers:
        for path in sorted(layer.files):
            if path.startswith(f"{folder}/") and path.endswith(ending):
                stem = path[len(folder) + 1 : -len(ending)]
                file = PolicyFile(name=stem, file=f"{layer.root}/{path}", data=layer.files[path])
                found.setdefault(stem, []).append(file)
    return found
