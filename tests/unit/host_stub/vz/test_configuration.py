from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from host_stub.vz.configuration import compose_command_line, compose_configuration
from host_stub.words import Disk, MachineSpec, Share, Trouble
from tests.unit.host_stub.vz.fake_vz import FakeMac, Plan


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    for name in ("root", "sessions", "kernel", "initrd"):
        (tmp_path / name).write_bytes(b"")
    return MachineSpec(
        architecture="aarch64",
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        command_line="console=ttyAMA0 root=LABEL=cowork-root ro",
        disks=(
            Disk(path=tmp_path / "root", serial="cowork-root", read_only=True),
            Disk(path=tmp_path / "sessions", serial="cowork-sessions"),
        ),
        shares=(Share(path=tmp_path),),
        vsock=tmp_path / "vsock",
        serial_log=tmp_path / "serial.log",
        state_dir=tmp_path,
    )


def compose(spec: MachineSpec, plan: Plan | None = None) -> tuple[dict[str, Any], list[str]]:
    reading, writing = os.pipe()
    configuration, notes = compose_configuration(
        FakeMac(plan).framework, spec, kernel=spec.kernel, console=(reading, writing)
    )
    return configuration._values, notes


def test_configuration_is_valid_and_complete(spec: MachineSpec) -> None:
    values, notes = compose(spec)
    assert values["valid"]
    assert notes == []
    assert values["cpucount"] == 2
    assert values["memorysize"] == 2 << 30
    assert values["bootloader"]._values["commandline"] == "console=hvc0 root=LABEL=cowork-root ro"
    assert [type(device).__name__ for device in values["storagedevices"]] == ["VZVirtioBlockDeviceConfiguration"] * 2
    assert [device._values["blockdeviceidentifier"] for device in values["storagedevices"]] == [
        "cowork-root",
        "cowork-sessions",
    ]
    attachments = [device._values["initWithAttachment:"][0]._values for device in values["storagedevices"]]
    assert [one["readonly"] for one in attachments] == [True, False]
    assert values["directorysharingdevices"][0]._values["initWithTag:"] == ["claudeshared"]
    assert "networkdevices" not in values


def test_command_line_has_the_one_console_there_is() -> None:
    asked = "console=ttyS0 root=LABEL=x console=hvc0 ro coworkd.dial=1"
    assert compose_command_line(asked) == "console=hvc0 root=LABEL=x ro coworkd.dial=1"


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (1, 1), (8, 8), (64, 8)])
def test_processors_are_brought_within_bounds_and_it_is_said(spec: MachineSpec, asked: int, given: int) -> None:
    values, notes = compose(structs.replace(spec, cpus=asked))
    assert values["cpucount"] == given
    assert ([f"instead of {asked}" in note for note in notes] == [True]) == (asked != given)


@pytest.mark.parametrize(
    ("asked", "given_mib"), [(1 << 20, 4), ((1 << 30) + 5, 1024), (1 << 40, 16384), (512 << 20, 512)]
)
def test_memory_is_brought_within_bounds_in_whole_mib(spec: MachineSpec, asked: int, given_mib: int) -> None:
    values, notes = compose(structs.replace(spec, memory_bytes=asked))
    assert values["memorysize"] == given_mib << 20
    assert len(notes) == (asked != given_mib << 20)


@pytest.mark.parametrize(
    ("bus", "kind"),
    [("nvme", "VZNVMExpressControllerDeviceConfiguration"), ("usb", "VZUSBMassStorageDeviceConfiguration")],
)
def test_disks_that_vz_cannot_name_are_told(spec: MachineSpec, bus: Any, kind: str) -> None:
    disks = (spec.disks[0], structs.replace(spec.disks[1], bus=bus))
    values, notes = compose(structs.replace(spec, disks=disks))
    assert type(values["storagedevices"][1]).__name__ == kind
    assert notes == ["sessions has no serial number: VZ gives one to virtio disks only; its label has to do"]


def test_nvme_needs_macos_14(spec: MachineSpec) -> None:
    disks = (structs.replace(spec.disks[0], bus="nvme"),)
    with pytest.raises(Trouble) as caught:
        compose(structs.replace(spec, disks=disks), Plan(macos=(13, 6)))
    assert caught.value.code == "macos_too_old"


def test_everything_else_runs_on_the_floor(spec: MachineSpec) -> None:
    disks = (spec.disks[0], structs.replace(spec.disks[1], bus="usb"))
    values, _ = compose(structs.replace(spec, disks=disks, boot="efi", network="nat"), Plan(macos=(13, 0)))
    assert type(values["bootloader"]).__name__ == "VZEFIBootLoader"
    assert values["networkdevices"][0]._values["macaddress"].string()


def test_disks_are_cached_and_fully_synchronised(spec: MachineSpec) -> None:
    mac = FakeMac()
    given: list[Any] = []

    def attach(mac: FakeMac, made: Any, url: Any, *rest: Any) -> Any:
        given.append(rest)
        made._values["url"] = url
        return made, None

    selector = "initWithURL:readOnly:cachingMode:synchronizationMode:error:"
    mac.behaviours[f"-VZDiskImageStorageDeviceAttachment {selector}"] = attach
    compose_configuration(mac.framework, spec, kernel=spec.kernel, console=os.pipe())
    assert given == [(True, 2, 1), (False, 2, 1)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"disks": (Disk(path=Path("/none"), serial="cowork-root"),)}, "bad_disk_image"),
        ({"disks": (Disk(path=Path(__file__), serial="a-serial-of-21-bytes-"),)}, "invalid_configuration"),
        ({"shares": (Share(path=Path("/"), tag=""),)}, "invalid_configuration"),
        (
            {"disks": (Disk(path=Path(__file__), serial="a"), Disk(path=Path(__file__), serial="b"))},
            "invalid_configuration",
        ),
        ({"kernel": None}, "no_kernel"),
    ],
)
def test_what_vz_refuses_is_told(spec: MachineSpec, change: dict[str, Any], code: str) -> None:
    with pytest.raises(Trouble) as caught:
        compose(structs.replace(spec, **change))
    assert caught.value.code == code


def test_the_missing_entitlement_is_told(spec: MachineSpec) -> None:
    with pytest.raises(Trouble) as caught:
        compose(spec, Plan(entitled=False))
    assert caught.value.code == "no_entitlement"
