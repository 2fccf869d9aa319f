from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from host_stub.vz.configuration import compose_configuration
from host_stub.words import Disk, MachineSpec, Share
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
