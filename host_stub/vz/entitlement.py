"""The entitlement `com.apple.security.virtualization`: macOS lets only programs signed with it make virtual machines.

Rules
- It must be on the binary that really runs. A framework build of Python (python.org, Homebrew, Apple's) starts a small `bin/python3`
  that becomes `Resources/Python.app/Contents/MacOS/Python`; a virtual environment adds a link before. That last one is what counts.
- Nothing is signed here. What to run is said, with the file it needs: signing somebody's interpreter is for its owner to do.
- An ad-hoc signature (`--sign -`) is enough; no developer account is needed. Updates of Python take it away again.

Sources: codesign(1); Apple, "com.apple.security.virtualization"; PyObjC issue 434 (a venv's link was signed, not the binary behind).
"""

from __future__ import annotations

import os
import plistlib
import shlex
import subprocess
import sys
from pathlib import Path

from host_stub.words import Trouble

ENTITLEMENT = "com.apple.security.virtualization"
_PATIENCE_S = 20.0


def find_interpreter(executable: str = sys.executable, prefix: str = sys.base_prefix) -> Path:
    """The binary that runs when `executable` is started."""
    inside = Path(prefix, "Resources/Python.app/Contents/MacOS/Python")
    return inside if inside.is_file() else Path(os.path.realpath(executable))


def compose_entitlements() -> bytes:
    """The property list that codesign(1) wants."""
    return plistlib.dumps({ENTITLEMENT: True})


def compose_commands(interpreter: Path, plist: Path) -> list[list[str]]:
    """What signs it, and what shows that it is signed. A binary that belongs to root is signed by root."""
    sudo = [] if os.access(interpreter, os.W_OK) else ["sudo"]
    return [
        [*sudo, "codesign", "--force", "--sign", "-", "--entitlements", str(plist), str(interpreter)],
        ["codesign", "--display", "--entitlements", "-", "--xml", str(interpreter)],
    ]


def write_entitlements(directory: Path) -> Path:
    """The property list as a file, for codesign. Raises `OSError`."""
    path = directory / "cowork-vm.entitlements"
    path.write_bytes(compose_entitlements())
    return path


def parse_entitlements(shown: bytes) -> frozenset[str]:
    """Those that are true in what `codesign --display --entitlements - --xml` printed; none where it is not signed with any."""
    start = shown.find(b"<?xml")
    if start < 0:
        return frozenset()
    try:
        table = plistlib.loads(shown[start:].rstrip(b"\0\n "))
    except (plistlib.InvalidFileException, ValueError, LookupError, SyntaxError):
        return frozenset()
    except Exception as error:  # expat's own error has no other name than this one
        if type(error).__name__ != "ExpatError":
            raise
        return frozenset()
    return frozenset(name for name, value in table.items() if value is True) if isinstance(table, dict) else frozenset()


def is_entitled(interpreter: Path, *, codesign: str = "codesign") -> bool | None:
    """Whether it is signed with the entitlement; None where that cannot be found out. Blocks for the moment codesign takes."""
    argv = [codesign, "--display", "--entitlements", "-", "--xml", str(interpreter)]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ENTITLEMENT in parse_entitlements(done.stdout)


def missing_entitlement(said: str = "", interpreter: Path | None = None) -> Trouble:
    """Trouble `no_entitlement`, with the commands to run."""
    binary = find_interpreter() if interpreter is None else interpreter
    commands = [shlex.join(command) for command in compose_commands(binary, Path("cowork-vm.entitlements"))]
    return Trouble(
        "no_entitlement",
        f"{binary} is not signed with {ENTITLEMENT}, so macOS lets it start no machine",
        remedy=f"`python -m host_stub.vz --entitlements` writes cowork-vm.entitlements; then run: {commands[0]}",
        details={"interpreter": str(binary), "commands": commands, "said": said},
    )
