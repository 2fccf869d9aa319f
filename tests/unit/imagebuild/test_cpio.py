from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from imagebuild.cpio import character_device, compose_cpio, regular, symlink

ENTRIES = {
    "init": regular(b"#!/bin/sh\n", mode=0o755),
    "bin/sh": symlink("busybox"),
    "bin/busybox": regular(b"x" * 5, mode=0o755),
    "dev/console": character_device(5, 1),
}


def test_the_same_entries_are_the_same_bytes_in_any_order() -> None:
    turned = dict(reversed(ENTRIES.items()))
    assert compose_cpio(ENTRIES, epoch=7) == compose_cpio(turned, epoch=7)
    assert compose_cpio(ENTRIES, epoch=7) != compose_cpio(ENTRIES, epoch=8)


def test_cpio_lists_what_was_written(tmp_path: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.fail("cpio is not here; ./setup test brings it")
    said = subprocess.run(
        ["cpio", "-tv", "--quiet"], input=compose_cpio(ENTRIES, epoch=0), capture_output=True, check=True, cwd=tmp_path
    )
    lines = said.stdout.decode().splitlines()
    assert [line.split()[-1] for line in lines] == ["bin", "bin/busybox", "busybox", "dev", "dev/console", "init"]
    assert [line.split()[0] for line in lines] == [
        "drwxr-xr-x",
        "-rwxr-xr-x",
        "lrwxrwxrwx",
        "drwxr-xr-x",
        "crw-------",
        "-rwxr-xr-x",
    ]
    assert "5,   1" in lines[4]


def test_members_begin_at_multiples_of_four() -> None:
    archive = compose_cpio({"abc": regular(b"12345")}, epoch=0)
    assert len(archive) % 512 == 0
    assert archive.index(b"070701", 1) % 4 == 0
