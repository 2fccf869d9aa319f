from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec import structs

from host_stub.vz.host import Host, judge, judge_host, look_at_host, parse_version
from host_stub.words import Architecture, Disk, DiskBus, MachineSpec, Trouble

MAC = Host(
    system="darwin", architecture="aarch64", macos=(14, 5), pyobjc=True, interpreter=Path("/python"), entitled=True
)


def spec(architecture: Architecture = "aarch64", bus: DiskBus = "virtio") -> MachineSpec:
    here = Path("/bundle")
    return MachineSpec(
        architecture=architecture,
        disks=(Disk(path=here / "root", serial="cowork-root", bus=bus),),
        vsock=here / "v",
        serial_log=here / "l",
        state_dir=here,
    )


def test_a_fitting_mac_is_taken() -> None:
    judge(MAC, spec())
    judge(MAC, spec(bus="nvme"))


@pytest.mark.parametrize(
    ("host", "machine", "code"),
    [
        (structs.replace(MAC, system="linux"), spec(), "no_hypervisor"),
        (structs.replace(MAC, translated=True), spec(), "no_hypervisor"),
        (structs.replace(MAC, macos=(12, 7)), spec(), "macos_too_old"),
        (structs.replace(MAC, macos=(13, 6)), spec(bus="nvme"), "macos_too_old"),
        (structs.replace(MAC, pyobjc=False), spec(), "no_pyobjc"),
        (structs.replace(MAC, entitled=False), spec(), "no_entitlement"),
        (MAC, spec("x86_64"), "wrong_architecture"),
        (structs.replace(MAC, architecture="x86_64"), spec(), "wrong_architecture"),
    ],
)
def test_what_is_missing_is_told(host: Host, machine: MachineSpec, code: str) -> None:
    with pytest.raises(Trouble) as caught:
        judge(host, machine)
    assert caught.value.code == code
    assert caught.value.remedy


def test_what_cannot_be_found_out_stops_nobody() -> None:
    judge(structs.replace(MAC, macos=None, entitled=None, architecture=None), spec())


@pytest.mark.parametrize(
    ("text", "version"), [("14.6.1", (14, 6)), ("26.0", (26, 0)), ("13", (13, 0)), ("", None), ("x.y", None)]
)
def test_version(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


@pytest.mark.skipif(sys.platform == "darwin", reason="the other side of this is for a Mac")
def test_this_host_is_no_mac_and_is_told_so() -> None:
    with pytest.raises(Trouble, match="macOS only"):
        judge_host(look_at_host())
