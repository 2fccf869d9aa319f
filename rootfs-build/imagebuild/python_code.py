"""coworkd in the image: /opt/coworkd, laid out as a virtual environment without its tools.

    /opt/coworkd/pyvenv.cfg                 makes /opt/coworkd the prefix, and lets the distribution's packages be imported
    /opt/coworkd/bin/{python3, and the programs of systemd/bin}
    /opt/coworkd/lib/{coworkd, the wheels}  lib/pythonX.Y/site-packages leads here
    /opt/coworkd/share/coworkd/{policies/, presets.json}

Byte code is of the unchecked-hash kind (PEP 552): nobody writes below a read-only root, and times tell nothing. It is compiled in one
process, in one order, with a fixed hash seed, because the bytes depend on all three; by a Python of the guest's minor version.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from imagebuild.recipe import Recipe
from imagebuild.run import run
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble

HOME = "opt/coworkd"
_COMPILE = """
import compileall, py_compile, sys
prefix = sys.argv[1]
good = all([
    compileall.compile_dir(
        directory, quiet=1, stripdir=prefix, prependdir="/", workers=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    for directory in sys.argv[2:]
])
sys.exit(0 if good else 1)
"""


def install_layout(tree: Tree, recipe: Recipe, programs: Path) -> None:
    """Everything of /opt/coworkd but code and policies; `programs` is the directory of the programs of its bin/."""
    version = recipe.suite.python
    tree.write(f"{HOME}/pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {version}\n")
    tree.link(f"{HOME}/lib/python{version}/site-packages", "..")
    tree.link(f"{HOME}/bin/python3", f"/usr/bin/python{version}")
    for path in sorted(programs.iterdir()):
        if path.is_file():
            tree.copy(f"{HOME}/bin/{path.name}", path, mode=0o755)
            tree.link(f"usr/bin/{path.name}", f"/{HOME}/bin/{path.name}")


def install_code(tree: Tree, checkout: Path, *, presets: bytes) -> None:
    """coworkd and its policies as they lie in the checkout, tracked by git or not yet; presets resolved on this machine."""
    for path in find_code(checkout):
        tree.copy(f"{HOME}/lib/{path.relative_to(checkout)}", path)
    policies = checkout / "policies"
    for path in sorted(policies.rglob("*")):
        if path.is_file():
            tree.copy(f"{HOME}/share/coworkd/policies/{path.relative_to(policies)}", path)
    tree.write(f"{HOME}/share/coworkd/presets.json", presets)


def find_code(checkout: Path) -> list[Path]:
    """The files of the package coworkd, without what Python leaves behind."""
    found = (path for path in (checkout / "coworkd").rglob("*") if path.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts and path.suffix != ".pyc")


def compile_code(tree: Tree, directories: Sequence[str], recipe: Recipe) -> None:
    """Byte code for every module below `directories`. Raises `Trouble` where one does not compile or no fitting Python is here."""
    python = find_python(recipe.suite.python)
    places = [str(tree.path(name)) for name in directories]
    run([python, "-S", "-c", _COMPILE, str(tree.root), *places], env={"PYTHONHASHSEED": "0"}, cwd="/")


def find_python(version: str) -> str:
    """A Python of the minor version `version` here; the distribution's first, so that it does not matter who calls. Raises `Trouble`."""
    for name in (f"/usr/bin/python{version}", f"python{version}", sys.executable):
        python = shutil.which(name)
        if python is None:
            continue
        if python_version(python).startswith(f"{version}."):
            return python
    raise Trouble(
        f"byte code for the guest is compiled by a Python {version}, and none is on this machine; install python{version}"
    )


def python_version(python: str) -> str:
    """The whole version of a Python, such as 3.11.2; empty for what is none."""
    code = "import platform; print(platform.python_version())"
    said = subprocess.run([python, "-S", "-c", code], capture_output=True, text=True, check=False)
    return said.stdout.strip()
