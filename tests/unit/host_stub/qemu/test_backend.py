from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from host_stub.qemu import QemuBackend
from host_stub.qemu.accelerator import Evidence
from host_stub.qemu.backend import keep_variables
from host_stub.qemu.tools import Virtiofsd
from host_stub.words import Disk, MachineSpec, Share, Trouble
from tests.unit.host_stub.qemu.test_command import spec_of


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineSpec:
    monkeypatch.setattr("host_stub.qemu.backend.find_qemu", lambda architecture: Path("/usr/bin/qemu"))
    for name in ("vmlinuz", "initrd.img", "rootfs.img"):
        (tmp_path / name).touch()
    return spec_for(tmp_path)


def spec_for(place: Path, **fields: Any) -> MachineSpec:
    words = {
        "kernel": place / "vmlinuz",
        "initrd": place / "initrd.img",
        "vsock": place / "v",
        "state_dir": place / "s",
    }
    disks = (Disk(path=place / "rootfs.img", serial="cowork-root", read_only=True),)
    return spec_of(**{"disks": disks, **words, **fields})


def code_of(spec: MachineSpec) -> str:
    with pytest.raises(Trouble) as caught:
        QemuBackend().check(spec)
    assert caught.value.remedy
    return caught.value.code


def test_a_whole_spec_passes(spec: MachineSpec) -> None:
    QemuBackend().check(spec)


def test_what_is_missing_is_told(spec: MachineSpec, tmp_path: Path) -> None:
    assert code_of(spec_for(tmp_path, kernel=tmp_path / "none")) == "missing_file"
    assert code_of(spec_for(tmp_path, disks=(Disk(path=tmp_path / "none", serial="x"),))) == "missing_file"
    assert code_of(spec_for(tmp_path, shares=(Share(path=tmp_path / "none"),))) == "no_share"


def test_a_share_goes_by_9p_where_no_virtiofsd_may_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Virtiofsd | None] = [None, Virtiofsd(path=tmp_path, kind="rust")]
    monkeypatch.setattr("host_stub.qemu.backend.find_virtiofsd", lambda: found.pop(0))
    share = Share(path=tmp_path)
    assert [QemuBackend().share_way(share), QemuBackend().share_way(share)] == ["9p", "virtiofs"]


def test_a_path_too_long_for_a_socket_is_told(spec: MachineSpec, tmp_path: Path) -> None:
    assert code_of(spec_for(tmp_path, state_dir=tmp_path / ("x" * 100))) == "path_too_long"
    assert code_of(spec_for(tmp_path, vsock=tmp_path / ("x" * 100))) == "path_too_long"


def test_an_accelerator_that_cannot_be_is_told(spec: MachineSpec) -> None:
    shut = Evidence(system="Linux", architecture="x86_64", kvm="permission denied")
    with pytest.raises(Trouble, match="permission denied"):
        QemuBackend(accelerator="kvm", evidence=lambda: shut).check(spec)


def test_variables_are_copied_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"fresh")
    path = keep_variables(empty, tmp_path)
    assert path.read_bytes() == b"fresh"
    path.write_bytes(b"mine")
    assert keep_variables(empty, tmp_path).read_bytes() == b"mine"
    assert not path.with_suffix(".part").exists()
