from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagebuild.filters import CACHE, find_kernel, find_library, install_filters
from imagebuild.tree import Tree
from imagebuild.trouble import Trouble
from tests.unit.imagebuild.tree_lab import make_tree, recipe

LIBRARY = "usr/lib/x86_64-linux-gnu/libseccomp.so.2.5.4"
FILES: dict[str, str | bytes] = {LIBRARY: b"x" * 9, "usr/lib/modules/6.1.0-56-cloud-amd64/modules.dep": ""}


def fake_checkout(place: Path, script: str) -> Path:
    python = place / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(python, 0o755)
    return place


def made(tmp_path: Path, files: dict[str, str | bytes] = FILES) -> Tree:
    return make_tree(tmp_path / "tree", files)


def test_they_are_made_for_the_guests_library_and_kernel_and_are_roots_alone(tmp_path: Path) -> None:
    script = 'all="$*"; while [ "$1" != --output ]; do shift; done; mkdir "$2"; echo "$all" >"$2/K.seccomp"'
    tree = made(tmp_path)
    install_filters(tree, recipe(), fake_checkout(tmp_path / "checkout", script), policies="p")
    said = tree.read(f"{CACHE}/K.seccomp")
    assert f"--libseccomp /{LIBRARY} --size 9" in said
    assert "--arch x86_64 --kernel 6.1" in said
    assert tree.path(CACHE).stat().st_mode & 0o077 == 0


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    checkout = fake_checkout(tmp_path / "checkout", "echo no such policy >&2; exit 1")
    with pytest.raises(Trouble, match="no such policy"):
        install_filters(made(tmp_path), recipe(), checkout, policies="p")


def test_without_the_library_it_says_which_package(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="python3-seccomp"):
        find_library(made(tmp_path, {"usr/lib/x86_64-linux-gnu/libc.so.6": ""}), recipe())


def test_two_kernels_are_one_too_many(tmp_path: Path) -> None:
    tree = made(tmp_path, {**FILES, "usr/lib/modules/6.8.0/x": ""})
    with pytest.raises(Trouble, match="one kernel"):
        find_kernel(tree)
