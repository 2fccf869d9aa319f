from __future__ import annotations

from pathlib import Path

import pytest

from host_stub.vz.kept import keep_mac_address, keep_machine_identifier, keep_variable_store
from host_stub.words import Trouble
from tests.unit.host_stub.vz.fake_vz import FakeMac


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_machine_identifier_is_made_once(tmp_path: Path) -> None:
    framework = FakeMac().framework
    first = bytes(keep_machine_identifier(framework, tmp_path).dataRepresentation())
    assert bytes(keep_machine_identifier(framework, tmp_path).dataRepresentation()) == first
    assert names(tmp_path) == {"machine-identifier"}


@pytest.mark.parametrize("content", [b"", b"rubbish", b"identifie"])
def test_damaged_identifier_is_told_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "machine-identifier"
    path.write_bytes(content)
    with pytest.raises(Trouble) as caught:
        keep_machine_identifier(FakeMac().framework, tmp_path)
    assert caught.value.code == "bad_identifier"
    assert path.read_bytes() == content


def test_variable_store_is_made_once_under_another_name_first(tmp_path: Path) -> None:
    framework = FakeMac().framework
    keep_variable_store(framework, tmp_path)
    (tmp_path / "efi-variables").write_bytes(b"kept")
    store = keep_variable_store(framework, tmp_path)
    assert store.URL()._values["path"] == str(tmp_path / "efi-variables")
    assert (tmp_path / "efi-variables").read_bytes() == b"kept"
    assert names(tmp_path) == {"efi-variables"}


def test_variable_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="cannot be made"):
        keep_variable_store(FakeMac().framework, tmp_path / "missing")


def test_mac_address_stays(tmp_path: Path) -> None:
    framework = FakeMac().framework
    assert keep_mac_address(framework, tmp_path).string() == keep_mac_address(framework, tmp_path).string()
    (tmp_path / "mac-address").write_text("rubbish\n")
    with pytest.raises(Trouble) as caught:
        keep_mac_address(framework, tmp_path)
    assert caught.value.code == "bad_mac_address"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        keep_machine_identifier(FakeMac().framework, tmp_path)
    assert names(tmp_path) == set()
