"""Running other programs: the one place of the builder that starts any.

A failure is told with the command as one could type it and with what the program said. Nothing here reads a shell.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from imagebuild.trouble import Trouble

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_SAID_BYTES = 4000

PACKAGE_OF: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
    "mcopy": "mtools",
    "mformat": "mtools",
    "mmd": "mtools",
    "zstd": "zstd",
    "depmod": "kmod",
}
"""What a person installs to have a program."""


def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str = "", cwd: str | None = None) -> str:
    """Run `argv` to its end and return what it wrote to standard output.

    `env` is added to the environment. Raises `Trouble` where the program is missing or returns anything but 0.
    """
    program = require(argv[0])
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(env or {})}
    done = subprocess.run(
        [program, *argv[1:]],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        cwd=cwd,
        check=False,
    )
    if done.returncode:
        said = (done.stderr + done.stdout).strip()[-_SAID_BYTES:]
        raise Trouble(f"this failed with status {done.returncode}: {shlex.join(argv)}\n{said}")
    return done.stdout


def require(program: str) -> str:
    """The path of `program`, or `Trouble` that names the package to install."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if found is None:
        package = PACKAGE_OF.get(program, program)
        raise Trouble(
            f"{program} is not on this machine; install the package {package} (./setup test brings all of them)"
        )
    return found
