from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from imagebuild import wheels
from imagebuild.cache import Cache
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_tree, recipe

HASH = "sha256:" + "0" * 64
LOCK = f"""# a comment
trio==0.35.0 ; implementation_name == 'cpython' and (sys_platform == 'darwin' or sys_platform == 'linux') \\
    --hash={HASH}
exceptiongroup==1.3.1 ; python_full_version < '3.11' and implementation_name == 'cpython' \\
    --hash={HASH} \\
    --hash={HASH}
python-prctl==1.8.1 ; sys_platform == 'linux' \\
    --hash={HASH}
mac-only==1 ; sys_platform == 'darwin' \\
    --hash={HASH}
"""
RUNTIME = Path(__file__).resolve().parents[3] / "requirements" / "runtime.lock"


@pytest.mark.parametrize(("suite", "names"), [("bookworm", ["trio"]), ("jammy", ["trio", "exceptiongroup"])])
def test_markers_are_judged_for_the_guest(suite: str, names: list[str]) -> None:
    assert [one.name for one in wheels.choose_locked(LOCK, recipe(suite=suite))] == names


def test_the_real_lock_is_understood_and_has_each_library_once() -> None:
    for suite in ("bookworm", "jammy"):
        names = [one.name for one in wheels.choose_locked(RUNTIME.read_text(), recipe(suite=suite))]
        assert len(names) == len(set(names))
        assert {"trio", "msgspec", "msgpack", "cryptography"} <= set(names)
        assert not {"python-prctl", "pyseccomp"} & set(names)


@pytest.mark.parametrize("line", ["trio>=1 --hash=sha256:" + "0" * 64, "trio==1", "-e .", "--index-url x"])
def test_what_is_not_pinned_is_refused(line: str) -> None:
    with pytest.raises(Trouble, match="no requirement with a version and hashes"):
        wheels.parse_lock(f"{line}\n")


@pytest.mark.parametrize(
    "marker", ["os.system('x') == 'y'", "unknown == '1'", "sys_platform", "sys_platform in 'linux'", "f()"]
)
def test_a_marker_that_is_not_understood_is_refused(marker: str) -> None:
    with pytest.raises(Trouble, match="marker"):
        wheels.marker_holds(marker, {"sys_platform": "linux"})


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ("", True),
        ("python_version >= '3.10'", True),
        ("python_version < '3.9'", False),
        ("not python_version < '3.9' or sys_platform == 'x'", True),
        ("sys_platform != 'linux'", False),
    ],
)
def test_versions_are_compared_as_numbers(marker: str, holds: bool) -> None:
    assert wheels.marker_holds(marker, {"python_version": "3.11", "sys_platform": "linux"}) is holds


def test_pip_may_take_wheels_with_known_hashes_alone() -> None:
    argv = wheels.compose_pip(["py"], recipe("aarch64", "jammy"), requirements=Path("r"), into=Path("d"))
    assert {"--require-hashes", "--no-deps", "cp310", "abi3", "manylinux_2_17_aarch64"} <= set(argv)
    assert argv[argv.index("--only-binary") + 1] == ":all:"
    assert "manylinux_2_36_aarch64" not in argv


def test_wheels_are_laid_out_as_site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake_pip(argv: list[str]) -> str:
        into = Path(argv[argv.index("--dest") + 1])
        into.mkdir()
        with zipfile.ZipFile(into / "x-1.whl", "w") as wheel:
            for name in (
                "x/__init__.py",
                "x-1.data/purelib/y.py",
                "x-1.data/scripts/x",
                "x-1.dist-info/RECORD",
                "x-1.dist-info/METADATA",
            ):
                wheel.writestr(name, name)
        return ""

    monkeypatch.setattr(wheels, "run", fake_pip)
    joined = wheels.fetch_wheels(LOCK, recipe(), cache=Cache(tmp_path / "cache"))
    tree = make_tree(tmp_path / "tree", {})
    wheels.install_wheels(joined, tree, "lib")
    assert {name for name in tree.names() if tree.path(name).is_file()} == {
        "lib/x/__init__.py",
        "lib/y.py",
        "lib/x-1.dist-info/METADATA",
    }
