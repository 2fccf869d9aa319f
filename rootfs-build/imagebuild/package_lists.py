"""Package lists: files that an admin edits.

One package a line; `#` begins a comment; `FAMILY:` before a name makes it that family's alone. A name that is no package's name refuses
the file with its line: what reaches APT is a name and nothing else, neither an option nor a version nor a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from imagebuild.trouble import Trouble

FAMILIES = ("debian", "ubuntu")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
"""Debian policy, 5.6.7."""


def read_package_lists(paths: Iterable[Path], *, family: str) -> tuple[str, ...]:
    """The packages of all lists for `family`, in order, each once. Raises `Trouble`."""
    found: dict[str, None] = {}
    for path in paths:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Trouble(f"the package list {path} cannot be read: {error}") from error
        found.update(dict.fromkeys(parse_package_list(text, family=family, file=str(path))))
    return tuple(found)


def parse_package_list(text: str, *, family: str, file: str) -> tuple[str, ...]:
    """The packages in `text` that are for `family`. Raises `Trouble` with the line that is none."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        wanted = line.partition("#")[0].strip()
        if not wanted:
            continue
        only, colon, name = wanted.rpartition(":")
        if colon and only not in FAMILIES:
            raise Trouble(f"{file}:{number}: {only!r} is no family of distributions: {' or '.join(FAMILIES)}")
        name = name.strip()
        if not _NAME.match(name):
            raise Trouble(
                f"{file}:{number}: {name!r} is not the name of a package: small letters, digits and + . -, one a line"
            )
        if not colon or only == family:
            found.append(name)
    return tuple(found)
