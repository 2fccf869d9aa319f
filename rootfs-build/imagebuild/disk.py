"""The disk that boots by EFI: GPT, the root as the first partition, an EFI system partition as the second (and the root's hashes).

Made of files: sfdisk writes the table, mtools the FAT file system, the parts are copied to where they belong. Nothing is mounted.

Source: sfdisk(8), mtools(1), the UEFI specification (removable media boot path).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from imagebuild.recipe import ROOT_LABEL, ROOT_UUID, Architecture
from imagebuild.run import run

_MIB = 1024 * 1024
_SECTOR = 512
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_DATA_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_DISK_ID = "C0C0A4D0-0000-4000-8000-000000000010"
_ESP_ID = "C0C0A4D0-0000-4000-8000-000000000011"
_VERITY_ID = "C0C0A4D0-0000-4000-8000-000000000012"
_FAT_SERIAL = "c0c0a4d0"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A file and what the table says of it."""

    content: Path
    type: str
    id: str
    name: str


def plan_partitions(architecture: Architecture, *, root: Path, esp: Path, verity: Path | None) -> list[Partition]:
    """The disk's, in order."""
    found = [
        Partition(content=root, type=architecture.root_partition_type, id=ROOT_UUID.upper(), name=ROOT_LABEL),
        Partition(content=esp, type=_ESP_TYPE, id=_ESP_ID, name="EFI"),
    ]
    if verity is not None:
        found.append(Partition(content=verity, type=_DATA_TYPE, id=_VERITY_ID, name="cowork-verity"))
    return found


def compose_sfdisk(partitions: list[Partition]) -> tuple[str, list[int], int]:
    """sfdisk's script, where each partition starts, and how long the disk is, in bytes. All are aligned to 1 MiB."""
    lines = ["label: gpt", f"label-id: {_DISK_ID}", "first-lba: 2048", "unit: sectors"]
    start, starts = _MIB, []
    for part in partitions:
        size = -(-part.content.stat().st_size // _MIB) * _MIB
        starts.append(start)
        lines.append(
            f"start={start // _SECTOR}, size={size // _SECTOR}, type={part.type}, uuid={part.id}, name={part.name}"
        )
        start += size
    return "\n".join(lines) + "\n", starts, start + _MIB


def write_disk(disk: Path, partitions: list[Partition]) -> None:
    """Make the file `disk`, sparse where nothing is. Raises `Trouble`."""
    script, starts, size = compose_sfdisk(partitions)
    with disk.open("wb") as stream:
        stream.truncate(size)
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)], stdin=script)
    with disk.open("r+b") as stream:
        for part, start in zip(partitions, starts, strict=True):
            stream.seek(start)
            with part.content.open("rb") as source:
                _copy_sparse(source.fileno(), stream.fileno(), start)


def write_esp(esp: Path, architecture: Architecture, uki: bytes, *, epoch: int) -> None:
    """Make the file `esp`: FAT with the one file that firmware starts by itself. Raises `Trouble`."""
    size_mib = max(34, -(-len(uki) // _MIB) + 4)
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1"}
    with esp.open("wb") as stream:
        stream.truncate(size_mib * _MIB)
    sectors = str(size_mib * _MIB // _SECTOR)
    run(
        ["mformat", "-i", str(esp), "-F", "-T", sectors, "-h", "16", "-s", "63", "-N", _FAT_SERIAL, "-v", "EFI", "::"],
        env=env,
    )
    run(["mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT"], env=env)
    with tempfile.TemporaryDirectory() as work:
        file = Path(work, architecture.efi_boot_file)
        file.write_bytes(uki)
        os.utime(file, (epoch, epoch))
        run(["mcopy", "-m", "-i", str(esp), str(file), "::/EFI/BOOT/"], env=env)


def _copy_sparse(source: int, target: int, offset: int) -> None:
    """Copy all of `source` to `offset` in `target`, leaving out blocks of zeros: there are zeros already."""
    zeros = bytes(_MIB)
    place = 0
    while chunk := os.pread(source, _MIB, place):
        if chunk != zeros[: len(chunk)]:
            os.pwrite(target, chunk, offset + place)
        place += len(chunk)
