"""The Python libraries of the image: wheels pinned by requirements/runtime.lock, for the guest's Python and machine.

pip fetches them and checks the lock's hashes; nothing of them is built or executed here. Markers are judged by us, for the guest, because
pip would judge them for the Python that runs it. What the distribution brings itself (`FROM_THE_DISTRIBUTION`) is left out.
"""

from __future__ import annotations

import ast
import posixpath
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagebuild.cache import Cache
from imagebuild.recipe import Recipe
from imagebuild.run import run
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble

FROM_THE_DISTRIBUTION = frozenset({"python-prctl", "pyseccomp"})
_GLIBC = range(35, 16, -1)
"""Minor versions of glibc 2 whose wheels run in every suite we know, the newest first (PEP 600)."""
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?:\s*;\s*(?P<marker>[^\\]*))?")


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One requirement of a lock."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def parse_lock(text: str) -> tuple[Locked, ...]:
    """The requirements of a lock in pip's format with hashes. Raises `Trouble` for a line without one."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _REQUIREMENT.match(line.partition(" --hash")[0].strip())
        hashes = tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", line))
        if match is None or not hashes:
            raise Trouble(f"this line of the lock is no requirement with a version and hashes: {line[:80]!r}")
        found.append(
            Locked(
                name=match["name"].lower(),
                version=match["version"],
                marker=(match["marker"] or "").strip(),
                hashes=hashes,
            )
        )
    return tuple(found)


def marker_holds(marker: str, environment: dict[str, str]) -> bool:
    """Judge a marker of PEP 508, as far as locks have them: comparisons of known names with texts, `and`, `or`, `not`, parentheses."""
    return not marker or _judge(ast.parse(marker, mode="eval").body, environment)


def _judge(node: ast.expr, environment: dict[str, str]) -> bool:
    if isinstance(node, ast.BoolOp):
        results = [_judge(value, environment) for value in node.values]
        return all(results) if isinstance(node.op, ast.And) else any(results)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _judge(node.operand, environment)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.left, ast.Name):
        right = node.comparators[0]
        if isinstance(right, ast.Constant) and isinstance(right.value, str) and node.left.id in environment:
            return _compare(node.left.id, environment[node.left.id], node.ops[0], right.value)
    raise Trouble(f"this marker of the lock is not understood: {ast.unparse(node)}")


def _compare(name: str, left: str, operator: ast.cmpop, right: str) -> bool:
    def key(text: str) -> tuple[int, ...] | str:
        return (
            tuple(int(part) for part in text.split(".")) if name in ("python_version", "python_full_version") else text
        )

    if isinstance(operator, ast.Eq):
        return key(left) == key(right)
    if isinstance(operator, ast.NotEq):
        return key(left) != key(right)
    one, other = key(left), key(right)
    if isinstance(one, tuple) and isinstance(other, tuple):
        match operator:
            case ast.Lt():
                return one < other
            case ast.LtE():
                return one <= other
            case ast.Gt():
                return one > other
            case ast.GtE():
                return one >= other
    raise Trouble(f"a marker of the lock compares {name} in a way that is not understood")


def choose_locked(text: str, recipe: Recipe) -> tuple[Locked, ...]:
    """What the guest needs of a lock."""
    environment = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": recipe.architecture.name,
        "python_version": recipe.suite.python,
        "python_full_version": f"{recipe.suite.python}.0",
    }
    return tuple(
        one
        for one in parse_lock(text)
        if one.name not in FROM_THE_DISTRIBUTION and marker_holds(one.marker, environment)
    )


def compose_pip(python: Sequence[str], recipe: Recipe, *, requirements: Path, into: Path) -> list[str]:
    """The argv that fetches the wheels of a file of requirements."""
    machine, version = recipe.architecture.name, recipe.suite.python
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [f"manylinux2014_{machine}"]
    return [
        *python,
        *("-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", version),
        *("--abi", f"cp{version.replace('.', '')}", "--abi", "abi3", "--abi", "none"),
        *(word for platform in platforms for word in ("--platform", platform)),
        *("--dest", str(into), "--requirement", str(requirements)),
    ]


def fetch_wheels(lock: str, recipe: Recipe, *, cache: Cache) -> Path:
    """A zip of all wheels' contents, laid out as site-packages. Raises `Trouble`."""
    wanted = choose_locked(lock, recipe)
    key = [[one.name, one.version, *one.hashes] for one in wanted] + [recipe.architecture.name, recipe.suite.python, 1]

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            requirements = Path(work, "requirements.txt")
            requirements.write_text("".join(f"{one.name}=={one.version} {_hashes(one)}\n" for one in wanted))
            wheels = Path(work, "wheels")
            run(compose_pip(find_pip(), recipe, requirements=requirements, into=wheels))
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as joined:
                for wheel in sorted(wheels.glob("*.whl")):
                    _join(wheel, joined)

    return cache.entry(f"wheels-{recipe.suite.python}-{recipe.architecture.name}", key, make, suffix=".zip")


def find_pip() -> list[str]:
    """A Python that has pip: the one that runs us, the checkout's, the machine's."""
    checkout = Path(__file__).resolve().parents[2]
    for python in (sys.executable, str(checkout / ".venv" / "bin" / "python"), "python3"):
        try:
            if not subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
                return [python]
        except OSError:
            continue
    raise Trouble("no Python with pip is here to fetch the wheels; make the checkout's by ./setup")


def install_wheels(wheels: Path, tree: Tree, site_packages: str) -> None:
    """Put all contents in place."""
    with zipfile.ZipFile(wheels) as joined:
        for name in sorted(joined.namelist()):
            tree.write(f"{site_packages}/{name}", joined.read(name))


def _hashes(one: Locked) -> str:
    return " ".join(f"--hash={value}" for value in one.hashes)


def _join(wheel: Path, joined: zipfile.ZipFile) -> None:
    """Copy a wheel's files to where an installer would put them (PEP 427); its scripts and headers are left out."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            top, _, rest = name.partition("/")
            target = name
            if top.endswith(".data"):
                kind, _, target = rest.partition("/")
                if kind not in ("purelib", "platlib"):
                    continue
            if name.endswith("/") or posixpath.basename(target) in ("RECORD", "INSTALLER", "REQUESTED"):
                continue
            joined.writestr(zipfile.ZipInfo(target), archive.read(name))
