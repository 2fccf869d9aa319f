from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coworkd.release.manifest import MANIFEST, Here, parse_manifest
from coworkd.release.store import verify
from coworkd.system.slot_files import HeldFiles
from host_stub.release import compose_bytes, compose_manifest, gather, running_python, write_signed
from host_stub.release_key import make_key
from host_stub.words import Trouble


@pytest.fixture
def package(tmp_path: Path) -> Path:
    code = tmp_path / "from" / "coworkd"
    (code / "inner").mkdir(parents=True)
    (code / "__init__.py").write_text("VALUE = 7\n")
    (code / "inner" / "__init__.py").write_text("")
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "old.pyc").write_bytes(b"old")
    (tmp_path / "policies" / "egress").mkdir(parents=True)
    (tmp_path / "policies" / "egress" / "default.json").write_text("{}")
    return code


def test_what_is_gathered_and_signed_is_what_a_guest_takes(tmp_path: Path, package: Path) -> None:
    target = tmp_path / "release"
    gather(target, code=package, policies=tmp_path / "policies")
    manifest = compose_manifest(target, version="1.2", python=(running_python(),))
    key = make_key()
    write_signed(target, manifest, key)
    here = Here(architecture="x86_64", python=running_python(), image_version="1.0", words=manifest.words)
    with HeldFiles(str(target)) as files:
        assert verify(files, "", (key.public,), here).manifest == manifest
    names = {file.path for file in manifest.files}
    assert "policies/egress/default.json" in names
    assert not any("old.pyc" in name for name in names)
    assert sum(name.endswith(".pyc") for name in names) == 2
    assert parse_manifest((target / MANIFEST).read_bytes()) == manifest


def test_bytecode_runs_and_says_no_path_of_this_machine(tmp_path: Path, package: Path) -> None:
    target = tmp_path / "release"
    gather(target, code=package, policies=None)
    program = f"import sys; sys.path.insert(0, {str(target / 'code')!r}); import coworkd; print(coworkd.VALUE, coworkd.__cached__)"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.startswith("7 ")
    for path in target.rglob("*.pyc"):
        assert str(tmp_path).encode() not in path.read_bytes()


def test_the_same_release_has_the_same_bytes(tmp_path: Path, package: Path) -> None:
    made = []
    for name in ("one", "two"):
        gather(tmp_path / name, code=package, policies=tmp_path / "policies")
        made.append(compose_bytes(compose_manifest(tmp_path / name, version="1.2")))
    assert made[0] == made[1]


def test_nothing_is_gathered_over_something(tmp_path: Path, package: Path) -> None:
    with pytest.raises(Trouble) as trouble:
        gather(tmp_path / "from", code=package, policies=None)
    assert trouble.value.code == "exists"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda top: (top / "code" / "coworkd" / "link").symlink_to("x"), "not_a_file"),
        (lambda top: (top / "code" / "coworkd" / "a b").write_text(""), "unsafe_path"),
        (lambda top: (top / "code" / "coworkd" / "__init__.py").unlink(), "missing_file"),
        (lambda top: (top / "code" / "coworkd" / "INNER").write_text(""), "malformed"),
    ],
)
def test_what_no_guest_would_take_is_not_signed(tmp_path: Path, package: Path, spoil: object, code: str) -> None:
    gather(tmp_path / "release", code=package, policies=None, with_bytecode=False)
    spoil(tmp_path / "release")  # type: ignore[operator]
    with pytest.raises(Trouble) as trouble:
        compose_manifest(tmp_path / "release", version="1.2")
    assert trouble.value.code == code


def test_a_release_of_nothing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Trouble):
        compose_manifest(tmp_path, version="1.2")
