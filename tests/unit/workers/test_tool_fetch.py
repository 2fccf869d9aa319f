"""Fetching a tool: what has the digest comes whole, and nothing that could lead or reach out of it."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from coworkd.model.tool import FetchTool, ToolAnswer, ToolFetched, ToolRefused
from coworkd.workers import tool_fetch
from coworkd.workers.tool_fetch import fetch


@pytest.fixture(autouse=True)
def _not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid():
        monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: None)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    (tmp_path / "incoming").mkdir()
    return tmp_path / "share"


def ask(
    share: Path, name: str, *, sha256: str | None = None, limit_bytes: int = 1 << 24, entries: int = 100
) -> ToolAnswer:
    file = share / name
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if sha256 is None else sha256
    return fetch(
        FetchTool(
            id=7,
            root=os.fsencode(share),
            source=name.encode(),
            incoming=os.fsencode(share.parent / "incoming"),
            file_name=b"agent",
            sha256=digest,
            limit_bytes=limit_bytes,
            limit_entries=entries,
        )
    )


def refused(answer: ToolAnswer) -> str:
    assert isinstance(answer, ToolRefused), answer
    return answer.why


def archive(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], *, mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def entry(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o755, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.linkname = kind, mode, target
    return made


def test_a_file_becomes_the_tool(share: Path) -> None:
    (share / "agent-1.2").write_bytes(b"#!/bin/sh\n")
    answer = ask(share, "agent-1.2")
    assert answer == ToolFetched(id=7, size_bytes=10, entries=1, executables=(b"agent",))
    made = share.parent / "incoming" / "agent"
    assert made.read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE(made.stat().st_mode) == 0o755


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("no-suffix", "w:gz")])
def test_an_archive_is_unpacked(share: Path, name: str, mode: str) -> None:
    entries = [
        (entry("bin", tarfile.DIRTYPE, 0o700), b""),
        (entry("bin/agent", mode=0o4750), b"run"),
        (entry("lib/data", mode=0o600), b"data"),
        (entry("link", tarfile.SYMTYPE, target="bin/agent"), b""),
    ]
    archive(share / name, entries, mode=mode)
    answer = ask(share, name)
    assert isinstance(answer, ToolFetched), answer
    assert (answer.size_bytes, answer.executables) == (7, (b"bin/agent",))
    top = share.parent / "incoming"
    modes = {
        str(path.relative_to(top)): stat.S_IMODE(path.lstat().st_mode)
        for path in top.rglob("*")
        if not path.is_symlink()
    }
    assert modes == {"bin": 0o755, "bin/agent": 0o755, "lib": 0o755, "lib/data": 0o644}


def test_another_digest_is_a_mismatch(share: Path) -> None:
    (share / "agent").write_bytes(b"changed")
    assert refused(ask(share, "agent", sha256="0" * 64)) == "mismatch"


def test_a_damaged_archive_of_another_digest_is_a_mismatch_first(share: Path) -> None:
    (share / "a.tar.gz").write_bytes(b"\x1f\x8b" + b"x" * 2_000_000)
    assert refused(ask(share, "a.tar.gz", sha256="0" * 64)) == "mismatch"
    assert refused(ask(share, "a.tar.gz")) == "bad_archive"


@pytest.mark.parametrize(
    "bad",
    [
        entry("../out"),
        entry("/absolute"),
        entry("device", tarfile.CHRTYPE),
        entry("pipe", tarfile.FIFOTYPE),
        entry("out", tarfile.SYMTYPE, target="../../etc/passwd"),
        entry("out", tarfile.SYMTYPE, target="/etc/passwd"),
        entry("self", tarfile.SYMTYPE, target="self"),
        entry("hard", tarfile.LNKTYPE, target="/etc/passwd"),
    ],
)
def test_what_leads_out_is_refused(share: Path, bad: tarfile.TarInfo) -> None:
    archive(share / "a.tar", [(entry("agent"), b"x"), (bad, b"")])
    assert refused(ask(share, "a.tar")) == "bad_archive"
    assert not (share.parent / "out").exists()


def test_a_link_that_leads_out_by_way_of_another_is_refused(share: Path) -> None:
    entries = [
        (entry("p/q/r/here", tarfile.SYMTYPE, target="."), b""),
        (entry("p/q/r/up", tarfile.SYMTYPE, target="here/../../../.."), b""),
    ]
    archive(share / "a.tar", entries)
    assert refused(ask(share, "a.tar")) == "bad_archive"


@pytest.mark.parametrize(
    "second", [entry("d", tarfile.SYMTYPE, target="agent"), entry("d"), entry("e" * 300, tarfile.DIRTYPE)]
)
def test_entries_that_contradict_one_another_are_the_archives_fault(share: Path, second: tarfile.TarInfo) -> None:
    tool = [(entry("agent"), b"x"), (entry("d", tarfile.DIRTYPE), b""), (entry("d/in"), b"x"), (second, b"")]
    archive(share / "a.tar", tool)
    assert refused(ask(share, "a.tar")) == "bad_archive"


def test_a_link_to_nothing_inside_is_left(share: Path) -> None:
    archive(share / "a.tar", [(entry("agent"), b"x"), (entry("l", tarfile.SYMTYPE, target="none/there"), b"")])
    assert isinstance(ask(share, "a.tar"), ToolFetched)


def test_too_much_is_refused_before_it_is_written(share: Path) -> None:
    (share / "agent").write_bytes(b"x" * 1000)
    assert refused(ask(share, "agent", limit_bytes=999)) == "too_big"


def test_a_small_file_that_unpacks_without_end_is_stopped(share: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        big = entry("zeros")
        big.size = 64 << 20
        tar.addfile(big, io.BytesIO(bytes(64 << 20)))
    (share / "a.tar.gz").write_bytes(gzip.compress(raw.getvalue()))
    assert (share / "a.tar.gz").stat().st_size < 200_000
    assert refused(ask(share, "a.tar.gz", limit_bytes=1 << 20)) == "too_big"


def test_too_many_entries_are_refused(share: Path) -> None:
    archive(share / "a.tar", [(entry(f"f{number}"), b"") for number in range(101)])
    assert refused(ask(share, "a.tar")) == "bad_archive"


def test_a_cut_archive_is_refused(share: Path) -> None:
    archive(share / "a.tar.gz", [(entry("agent"), os.urandom(100_000))], mode="w:gz")
    data = (share / "a.tar.gz").read_bytes()
    (share / "a.tar.gz").write_bytes(data[:-20_000])
    assert refused(ask(share, "a.tar.gz")) == "bad_archive"


def test_members_behind_one_another_are_one_archive(share: Path) -> None:
    archive(share / "a.tar", [(entry("agent"), b"x" * 5000)])
    data = (share / "a.tar").read_bytes()
    (share / "a.tar.gz").write_bytes(gzip.compress(data[:3000]) + gzip.compress(data[3000:]))
    answer = ask(share, "a.tar.gz")
    assert isinstance(answer, ToolFetched), answer
    assert answer.size_bytes == 5000


def test_zstd_is_named(share: Path) -> None:
    (share / "a").write_bytes(b"\x28\xb5\x2f\xfd rest")
    answer = ask(share, "a")
    assert isinstance(answer, ToolRefused)
    assert "zstd" in answer.message


def test_a_source_is_found_below_the_share_only_and_through_no_link(share: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (share / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(share / "pipe")
    (share / "directory").mkdir()
    why = {
        name: refused(ask(share, name, sha256="0" * 64)) for name in ("../secret", "link", "pipe", "directory", "none")
    }
    assert why == {
        "../secret": "not_a_file",
        "link": "not_a_file",
        "pipe": "not_a_file",
        "directory": "not_a_file",
        "none": "not_found",
    }


def test_a_source_that_grows_while_it_is_read_is_stopped(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (share / "agent").write_bytes(b"x")
    endless: Any = lambda fd, count: b"x" * 1000  # noqa: E731
    monkeypatch.setattr(os, "read", endless)
    assert refused(ask(share, "agent", sha256="0" * 64, limit_bytes=10_000)) == "too_big"


def test_a_disk_that_refuses_is_told(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (share / "agent").write_bytes(b"x")

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tool_fetch, "syncfs", fail)
    answer = ask(share, "agent")
    assert answer == ToolRefused(id=7, why="disk", message="No space left on device", errno=28)
