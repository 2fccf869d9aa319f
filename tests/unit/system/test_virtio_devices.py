from __future__ import annotations

from pathlib import Path

from coworkd.system.virtio_devices import FILE_SYSTEM, device_types


def test_types_are_read_from_sysfs(tmp_path: Path) -> None:
    for name, text in (("virtio0", "0x0001\n"), ("virtio1", "0x001a\n"), ("virtio2", "torn"), ("virtio3", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "device").write_text(text)
    assert device_types(str(tmp_path)) == [1, FILE_SYSTEM]


def test_a_machine_without_virtio_has_none(tmp_path: Path) -> None:
    assert device_types(str(tmp_path / "nowhere")) == []
