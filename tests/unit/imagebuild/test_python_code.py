from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from imagebuild import python_code
from imagebuild.recipe import SUITES
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_tree, recipe

OWN = replace(recipe(), suite=replace(SUITES["bookworm"], python=f"{sys.version_info[0]}.{sys.version_info[1]}"))


def make_checkout(root: Path) -> Path:
    for name, text in {
        "coworkd/__init__.py": "",
        "coworkd/app.py": "KINDS = frozenset({'a', 'b', 'c'})\n",
        "coworkd/__pycache__/app.cpython-311.pyc": "old",
        "policies/profiles/default.toml": "x = 1\n",
        "systemd/bin/coworkd": "#!/opt/coworkd/bin/python3 -I\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_layout_is_a_prefix_of_its_own(tmp_path: Path) -> None:
    checkout, tree = make_checkout(tmp_path / "checkout"), make_tree(tmp_path / "tree", {})
    python_code.install_layout(tree, OWN, checkout / "systemd" / "bin")
    python_code.install_code(tree, checkout, presets=b"{}")
    assert "include-system-site-packages = true" in tree.read("opt/coworkd/pyvenv.cfg")
    assert tree.path("opt/coworkd/bin/coworkd").stat().st_mode & 0o777 == 0o755
    assert tree.path("usr/bin/coworkd").readlink() == Path("/opt/coworkd/bin/coworkd")
    assert tree.read("opt/coworkd/share/coworkd/policies/profiles/default.toml") == "x = 1\n"
    assert tree.read("opt/coworkd/share/coworkd/presets.json") == "{}"
    assert sorted(path.name for path in (tree.root / "opt/coworkd/lib/coworkd").iterdir()) == ["__init__.py", "app.py"]


def test_byte_code_is_unchecked_and_the_same_wherever_it_was_made(tmp_path: Path) -> None:
    made = []
    for name in ("one", "a-longer-name"):
        tree = make_tree(
            tmp_path / name, {"opt/coworkd/lib/m.py": "KINDS = frozenset({'a', 'b', 'c'})\nassert KINDS\n"}
        )
        python_code.compile_code(tree, ["opt/coworkd/lib"], OWN)
        (path,) = (tree.root / "opt/coworkd/lib/__pycache__").iterdir()
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert made[0][:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(made[0][4:8], "little") == 1  # hash-based, not checked (PEP 552)
    assert b"/opt/coworkd/lib/m.py" in made[0]


def test_a_module_that_does_not_compile_stops_the_build(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"lib/m.py": "def\n"})
    with pytest.raises(Trouble, match=r"m\.py"):
        python_code.compile_code(tree, ["lib"], OWN)


def test_a_python_of_another_version_is_not_taken() -> None:
    assert python_code.python_version(python_code.find_python(OWN.suite.python)).startswith(f"{OWN.suite.python}.")
    with pytest.raises(Trouble, match=r"install python9\.9"):
        python_code.find_python("9.9")
