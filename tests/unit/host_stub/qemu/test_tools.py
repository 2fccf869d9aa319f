from __future__ import annotations

from pathlib import Path

import pytest

from host_stub.qemu.tools import find_firmware, find_qemu, find_virtiofsd, parse_virtiofsd_help
from host_stub.words import Trouble


def test_qemu_that_is_missing_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(Trouble, match="qemu-system-aarch64 is not installed") as caught:
        find_qemu("aarch64")
    assert caught.value.code == "no_hypervisor"
    assert "qemu-system-arm" in caught.value.remedy


def test_firmware_is_found_where_both_its_files_are(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "OVMF").mkdir(parents=True)
    (first / "OVMF/OVMF_CODE_4M.fd").touch()
    (second / "qemu").mkdir(parents=True)
    for name in ("edk2-x86_64-code.fd", "edk2-i386-vars.fd"):
        (second / "qemu" / name).touch()
    found = find_firmware("x86_64", (str(first), str(second)))
    assert found.code == second / "qemu/edk2-x86_64-code.fd"


def test_firmware_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="no EFI firmware for aarch64") as caught:
        find_firmware("aarch64", (str(tmp_path),))
    assert caught.value.code == "no_firmware"


@pytest.mark.parametrize(
    ("said", "kind", "read_only"),
    [
        ("usage: virtiofsd [options]\n    -o source=PATH   shared directory tree", "c", False),
        ("Usage: virtiofsd\n  --shared-dir <SHARED_DIR>\n  --readonly", "rust", True),
        ("Usage: virtiofsd\n  --shared-dir <SHARED_DIR>", "rust", False),
    ],
)
def test_virtiofsd_is_known_by_its_help(said: str, kind: str, read_only: bool) -> None:
    found = parse_virtiofsd_help(Path("/v"), said)
    assert found is not None
    assert (found.kind, found.read_only) == (kind, read_only)


def test_what_says_nothing_is_no_virtiofsd(tmp_path: Path) -> None:
    assert parse_virtiofsd_help(Path("/v"), "segmentation fault") is None
    silent = tmp_path / "virtiofsd"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    assert find_virtiofsd([str(silent), str(tmp_path / "none")]) is None or find_virtiofsd([]) is not None
