from __future__ import annotations

import json
import subprocess
from pathlib import Path

from imagebuild.disk import compose_sfdisk, plan_partitions, write_disk, write_esp
from imagebuild.recipe import ARCHITECTURES
from imagebuild.run import require

X86 = ARCHITECTURES["x86_64"]
_MIB = 1024 * 1024


def make_parts(tmp_path: Path, *, verity: bool = False) -> list:  # type: ignore[type-arg]
    root, esp, hashes = tmp_path / "root", tmp_path / "esp", tmp_path / "hashes"
    root.write_bytes(b"r" * (_MIB + 4096))
    esp.write_bytes(bytes(_MIB) + b"e" * _MIB)
    hashes.write_bytes(b"h" * 4096)
    return plan_partitions(X86, root=root, esp=esp, verity=hashes if verity else None)


def test_partitions_begin_and_end_at_whole_mebibytes(tmp_path: Path) -> None:
    _, starts, size = compose_sfdisk(make_parts(tmp_path, verity=True))
    assert starts == [1 * _MIB, 3 * _MIB, 5 * _MIB]
    assert size == 7 * _MIB


def test_the_table_says_what_each_partition_is_and_holds_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    write_disk(disk, make_parts(tmp_path))
    said = subprocess.run([require("sfdisk"), "--json", str(disk)], capture_output=True, check=True)
    parts = json.loads(said.stdout)["partitiontable"]["partitions"]
    assert [(part["name"], part["type"]) for part in parts] == [
        ("cowork-root", X86.root_partition_type),
        ("EFI", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
    ]
    content = disk.read_bytes()
    assert content[_MIB : 2 * _MIB + 4096] == b"r" * (_MIB + 4096)
    assert content[3 * _MIB : 5 * _MIB] == bytes(_MIB) + b"e" * _MIB


def test_the_same_parts_are_the_same_disk(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_disk(tmp_path / name, make_parts(tmp_path))
        write_esp(tmp_path / f"{name}.esp", X86, b"MZ" * 3000, epoch=1_700_000_000)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one.esp").read_bytes() == (tmp_path / "two.esp").read_bytes()


def test_firmware_finds_its_one_file(tmp_path: Path) -> None:
    write_esp(tmp_path / "esp", ARCHITECTURES["aarch64"], b"MZ kernel", epoch=1_700_000_000)
    said = subprocess.run(
        [require("mcopy"), "-n", "-i", str(tmp_path / "esp"), "::/EFI/BOOT/BOOTAA64.EFI", "-"],
        capture_output=True,
        check=True,
    )
    assert said.stdout == b"MZ kernel"
