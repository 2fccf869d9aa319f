"""What other programs are set to, found where they keep it: their files, the environment, their own answers.

`Machine` is where to look, `Told` what was found: URLs, each with the file or program that said so, which of them the tool was set to
by somebody, and notes about what could not be read. Blocking. Programs are asked with a deadline, without input, in an environment of a
few variables, and never as part of coworkd's own life: only presets are made from this, once, by whoever installs.

A home counts only where it is the asking user's own: nobody else's file says what may be reached.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ASK_DEADLINE_S = 20.0
"""npm starts slowly on a cold machine."""
MAX_FILE_BYTES = 1 << 20
SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
"""The guest's own, which sessions trust too."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+\Z")

Ask = Callable[[Sequence[str], Mapping[str, str]], str | None]
"""argv and variables → what it printed; None where it is not there, failed, or did not end."""


class Url(NamedTuple):
    """A URL and who said so."""

    text: str
    said_by: str


@dataclass
class Told:
    """What was found. `notes` are sentences about what was passed over."""

    urls: list[Url] = field(default_factory=list)
    variables: dict[str, list[Url]] = field(default_factory=dict)
    """Variable of the tool → what somebody set it to here, a built-in default never. A trusted host is told as its URL."""
    notes: list[str] = field(default_factory=list)

    def add(self, text: str, said_by: str) -> None:
        """Keep a URL; what is none is noted without its text, for it may be a secret put into the wrong place."""
        if _URL.match(text):
            self.urls.append(Url(text, said_by))
        else:
            self.notes.append(f"{said_by}: has something that is no URL where one belongs")

    def set(self, text: str, said_by: str, *variables: str) -> None:
        """Somebody set the tool to this URL, which `variables` would say too."""
        for variable in variables if _URL.match(text) else ():
            self.variables.setdefault(variable, []).append(Url(text, said_by))

    def note_certificates(self, path: str, said_by: str) -> None:
        """The tool trusts a file of its own, which sessions do not see."""
        if path not in SYSTEM_CERTIFICATES:
            self.notes.append(
                f"{said_by}: sessions trust its file of certificates after `coworkctl ca install NAME FILE`"
            )


def ask_program(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """See `Ask`. Its standard error is not looked at."""
    path = shutil.which(argv[0])
    if path is None:
        return None
    try:
        done = subprocess.run(
            (path, *argv[1:]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **environ},
            cwd="/",
            timeout=ASK_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True)
class Machine:
    """Where to look. `root` stands before every path, for tests; what is told about a file never has it."""

    environ: Mapping[str, str]
    home: str | None
    """The asking user's own; None where there is none to be trusted."""
    ask: Ask = ask_program
    root: str = ""

    def read(self, path: str, told: Told) -> str | None:
        """A settings file as text; None where it is not there, or cannot be read, which is noted."""
        try:
            with open(f"{self.root}{path}", "rb") as file:
                return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            told.notes.append(f"{path} cannot be read: {error.strerror}")
            return None

    def list(self, directory: str, told: Told) -> tuple[str, ...]:
        """The paths in a directory, in the order of their names."""
        try:
            return tuple(f"{directory}/{name}" for name in sorted(os.listdir(f"{self.root}{directory}")))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            told.notes.append(f"{directory} cannot be read: {error.strerror}")
            return ()

    def at_home(self, name: str) -> tuple[str, ...]:
        """The path of a file of the user's; none without a home."""
        return (f"{self.home}/{name}",) if self.home is not None else ()

    def variables(self, *prefixes: str) -> dict[str, str]:
        """HOME, and the variables whose names begin so, in either case."""
        chosen = {name: value for name, value in self.environ.items() if name.upper().startswith(prefixes)}
        return {**chosen, **({"HOME": self.home} if self.home is not None else {})}


def this_machine() -> Machine:
    """The machine we are on, as the user who asks."""
    home = os.path.expanduser("~")
    try:
        own = os.stat(home).st_uid == os.geteuid()
    except OSError:
        own = False
    return Machine(environ=dict(os.environ), home=home.rstrip("/") if own else None)
