"""Which files are refused because the kernel has no format for them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from coworkd.launcher import formats
from coworkd.launcher.formats import Formats

NATIVE = Path(sys.executable).resolve()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Formats:
    monkeypatch.setattr(formats, "_BINFMT", str(tmp_path / "none"))
    return Formats(os.fsencode(NATIVE))


def refuses(judge: Formats, place: Path, data: bytes, *, mode: int = 0o755) -> bool:
    (place / "command").write_bytes(data)
    (place / "command").chmod(mode)
    return judge.refuses(b"./command", search_path=b"", cwd=os.fsencode(place))


def foreign_elf() -> bytes:
    head = bytearray(NATIVE.read_bytes()[:64])
    head[18] ^= 0x55
    return bytes(head)


def test_formats_refuse_what_no_kernel_here_executes(judge: Formats, tmp_path: Path) -> None:
    assert refuses(judge, tmp_path, foreign_elf())
    assert refuses(judge, tmp_path, b"\x7fELF")
    assert refuses(judge, tmp_path, b"MZ\0\0rest")


def test_formats_leave_programs_and_scripts(judge: Formats, tmp_path: Path) -> None:
    assert not refuses(judge, tmp_path, NATIVE.read_bytes()[:64])
    assert not refuses(judge, tmp_path, b"#!/bin/sh\n\0")
    assert not refuses(judge, tmp_path, b"echo a script without a mark\n\0\0")
    assert not refuses(judge, tmp_path, b"")


def test_formats_leave_the_rest_to_execve(judge: Formats, tmp_path: Path) -> None:
    assert not refuses(judge, tmp_path, foreign_elf(), mode=0o644)
    for command in (b"/no/such/file", b"/etc/passwd/x", b".", b"x" * 300, b"nowhere"):
        assert not judge.refuses(command, search_path=b"/usr/bin:/bin", cwd=os.fsencode(tmp_path))


def test_formats_search_as_execvp_does(judge: Formats, tmp_path: Path) -> None:
    for name, data in (("first", NATIVE.read_bytes()[:64]), ("second", foreign_elf())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_bytes(data)
        (tmp_path / name / "tool").chmod(0o755)
    here = os.fsencode(tmp_path)
    assert not judge.refuses(b"tool", search_path=here + b"/none:" + here + b"/first:" + here + b"/second", cwd=b"/")
    assert judge.refuses(b"tool", search_path=b"second:first", cwd=here)


def test_formats_do_not_judge_where_the_kernel_knows_more(
    judge: Formats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "binfmt").mkdir()
    monkeypatch.setattr(formats, "_BINFMT", str(tmp_path / "binfmt"))
    for name in ("register", "status"):
        (tmp_path / "binfmt" / name).touch()
    assert refuses(Formats(os.fsencode(NATIVE)), tmp_path, foreign_elf())
    (tmp_path / "binfmt" / "rosetta").touch()
    assert not refuses(Formats(os.fsencode(NATIVE)), tmp_path, foreign_elf())
