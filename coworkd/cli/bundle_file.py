"""The file of a bundle: a tar in gzip with one JSON file for each part, and a manifest that tells of each. Pure, but for `write_new`.

    coworkd-bundle/manifest.json     each file: where from, how many bytes, how much was left out; what is missing, and why
    coworkd-bundle/README            what this is, for whoever opens it
    coworkd-bundle/NAME.json …

Rules: the file is 0600 and never replaces one; it is whole or not there.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from coworkd.archive.entry import Entry
from coworkd.archive.writer import END, compose_entry, padding

DIRECTORY = "coworkd-bundle"
PART_BYTES = 4 * 1024 * 1024
_README = """What a coworkd and its machine are like, for a report of an error. manifest.json tells where each file is from.

Left out, by rules that say what may be in here and not what may not: environments, tokens and keys, addresses with
names in them, arguments and paths of commands (unless they were asked for), names of sessions and hosts. A word that
coworkd does not say itself is [removed]. Read it all the same before you send it.
"""


def compose_bundle(parts: Mapping[str, str], manifest: Mapping[str, Any], *, at: float) -> bytes:
    """The whole file. `parts` are JSON texts by name of file; one that is too long is left out, and told so."""
    files, listed = [], []
    for entry in manifest["parts"]:
        data = parts[entry["file"]].encode() + b"\n" if entry["file"] in parts else b""
        told = dict(entry)
        if len(data) > PART_BYTES:
            told["missing"] = f"too long: {len(data)} bytes"
        elif data:
            files.append((entry["file"], data))
            told["bytes"] = len(data)
        listed.append(told)
    head = [("manifest.json", _json({**manifest, "parts": listed})), ("README", _README.encode())]
    return gzip.compress(b"".join(_member(name, data, at) for name, data in [*head, *files]) + END, mtime=int(at))


def write_new(path: str, data: bytes) -> None:
    """Make a file that is not there yet, 0600. Raises `OSError`, and then there is none."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except BaseException:
        os.unlink(path)
        raise


def missing(names: Sequence[tuple[str, str]], why: str) -> list[dict[str, Any]]:
    """Entries of the manifest for parts that nobody could be asked for."""
    return [{"file": file, "source": source, "missing": why} for file, source in names]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"


def _member(name: str, data: bytes, at: float) -> bytes:
    entry = Entry(
        kind="file", path=f"{DIRECTORY}/{name}".encode(), mode=0o600, size=len(data), mtime_ns=int(at) * 10**9
    )
    return compose_entry(entry) + data + padding(len(data))
