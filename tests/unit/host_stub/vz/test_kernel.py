from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from host_stub.vz import kernel as module
from host_stub.vz.kernel import check_kernel, kernel_kind, prepare_kernel
from host_stub.words import Trouble

IMAGE = b"MZ" + bytes(54) + b"ARM\x64" + bytes(2000)
BZIMAGE = bytes(514) + b"HdrS" + bytes(100)


def zboot(payload: bytes, *, packing: bytes = b"gzip", offset: int = 64, size: int | None = None) -> bytes:
    head = b"MZ\0\0zimg" + struct.pack("<II", offset, len(payload) if size is None else size)
    return (head.ljust(24, b"\0") + packing.ljust(32, b"\0")).ljust(64, b"\0") + payload


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (IMAGE, "image"),
        (BZIMAGE, "bzimage"),
        (gzip.compress(IMAGE), "gzip"),
        (zboot(b""), "zboot"),
        (b"", "unknown"),
        (b"ELF" * 300, "unknown"),
    ],
)
def test_kind(head: bytes, kind: str) -> None:
    assert kernel_kind(head[:520]) == kind


@pytest.mark.parametrize(
    "packed", [gzip.compress(IMAGE), zboot(gzip.compress(IMAGE)), gzip.compress(IMAGE) + b"\0" * 8]
)
def test_packed_kernel_is_unpacked_once(tmp_path: Path, packed: bytes) -> None:
    source, state = tmp_path / "vmlinuz", tmp_path / "state"
    state.mkdir()
    source.write_bytes(packed)
    prepared = prepare_kernel(source, "aarch64", state)
    assert prepared.read_bytes() == IMAGE
    before = prepared.stat().st_mtime_ns
    assert prepare_kernel(source, "aarch64", state) == prepared
    assert prepared.stat().st_mtime_ns == before
    assert [path.name for path in state.iterdir()] == [prepared.name]


def test_another_kernel_gets_another_copy(tmp_path: Path) -> None:
    source = tmp_path / "vmlinuz"
    source.write_bytes(gzip.compress(IMAGE))
    first = prepare_kernel(source, "aarch64", tmp_path)
    source.write_bytes(gzip.compress(IMAGE + b"newer"))
    assert prepare_kernel(source, "aarch64", tmp_path) != first


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
def test_right_kernel_is_left_as_it_is(tmp_path: Path, architecture: str) -> None:
    source = tmp_path / "vmlinuz"
    source.write_bytes(IMAGE if architecture == "aarch64" else BZIMAGE)
    assert prepare_kernel(source, architecture, tmp_path) == source  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BZIMAGE, "is no aarch64 kernel"),
        (b"", "is no aarch64 kernel"),
        (gzip.compress(IMAGE)[:-20], "cut off"),
        (b"\x1f\x8b" + b"\xff" * 100, "cannot be unpacked"),
        (gzip.compress(BZIMAGE), "no arm64 Image"),
        (zboot(b"x" * 10, packing=b"zstd"), "packed with 'zstd'"),
        (zboot(b"x" * 10, size=2**32 - 1), "points outside"),
        (zboot(b"x" * 10, size=0), "points outside"),
    ],
)
def test_bad_kernel_is_told_and_leaves_nothing(tmp_path: Path, content: bytes, why: str) -> None:
    source, state = tmp_path / "vmlinuz", tmp_path / "state"
    state.mkdir()
    source.write_bytes(content)
    with pytest.raises(Trouble, match=why) as caught:
        prepare_kernel(source, "aarch64", state)
    assert caught.value.code == "bad_kernel"
    assert list(state.iterdir()) == []


def test_a_kernel_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KERNEL_LIMIT_BYTES", 4096)
    source = tmp_path / "vmlinuz"
    source.write_bytes(gzip.compress(IMAGE + bytes(1 << 20)))
    with pytest.raises(Trouble, match="more than"):
        prepare_kernel(source, "aarch64", tmp_path)


def test_missing_kernel_is_told(tmp_path: Path) -> None:
    with pytest.raises(Trouble) as caught:
        check_kernel(tmp_path / "none", "x86_64")
    assert caught.value.code == "missing_file"
