"""The seccomp filters of the image's policies, made ahead: a guest takes them from its cache, checked by their hashes.

`coworkd.cli.filter_cache` of the checkout makes them, in the same way coworkd would in the guest. Their key has the guest's libseccomp in
it, so this comes when that file has its last time stamp.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from imagebuild.recipe import Recipe
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble

CACHE = "var/cache/coworkd"
_LIBRARY = re.compile(r"libseccomp\.so\.2\.[0-9.]+\Z")


def install_filters(tree: Tree, recipe: Recipe, checkout: Path, *, policies: str) -> None:
    """Put them where coworkd keeps its own. Raises `Trouble`."""
    library = find_library(tree, recipe)
    with tempfile.TemporaryDirectory() as work:
        command = [
            *(str(checkout / ".venv" / "bin" / "python"), "-m", "coworkd.cli.filter_cache"),
            *("--arch", recipe.architecture.name, "--kernel", find_kernel(tree), "--output", f"{work}/cache"),
            *("--libseccomp", f"/{library}", "--size", str(tree.path(library).stat().st_size)),
            *("--mtime", str(recipe.source_date_epoch), "--policies", str(tree.path(policies))),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
        if done.returncode:
            raise Trouble(f"the filters of the policies cannot be made ahead: {(done.stderr or done.stdout).strip()}")
        tree.directory(CACHE, mode=0o700)
        for path in sorted(Path(work, "cache").iterdir()):
            tree.write(f"{CACHE}/{path.name}", path.read_bytes(), mode=0o600)


def find_library(tree: Tree, recipe: Recipe) -> str:
    """The libseccomp that coworkd will find in the guest."""
    directory = f"usr/lib/{recipe.architecture.triplet}"
    found = sorted(name for name in tree.names(directory) if _LIBRARY.search(name))
    if not found:
        raise Trouble(f"there is no libseccomp in {directory}: is python3-seccomp in the package list?")
    return found[0]


def find_kernel(tree: Tree) -> str:
    """Major and minor of the kernel whose modules are there."""
    releases = {name.split("/")[3] for name in tree.names("usr/lib/modules")}
    if len(releases) != 1:
        raise Trouble(f"an image has one kernel, and here are modules of {len(releases)}")
    release = releases.pop()
    return ".".join(release.split(".")[:2])
