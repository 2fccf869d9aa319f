"""manifest.json, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from host_stub.manifest import MAX_BYTES, parse_manifest
from host_stub.words import Trouble
from tests.unit.host_stub.image_lab import make_image


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    return make_image(tmp_path)


def parse(tree: Any) -> Any:
    return parse_manifest(json.dumps(tree).encode(), source="manifest.json")


def test_a_good_manifest_is_read_whole(good: dict[str, Any]) -> None:
    manifest = parse({**good, "verity": {"root_hash": "0" * 64}, "later": 1})
    assert (manifest.name, manifest.architecture, manifest.packages[0].name) == ("cowork", "x86_64", "bash")
    assert set(manifest.needed("kernel")) == {"kernel", "initrd", "rootfs"}
    assert manifest.needed("efi")["disk"].compressed.file == "disk.img.zst"


def test_what_an_image_does_not_have_cannot_be_booted(good: dict[str, Any]) -> None:
    del good["artifacts"]["disk"]
    with pytest.raises(Trouble, match="has no disk") as caught:
        parse(good).needed("efi")
    assert caught.value.code == "no_artifact"


@pytest.mark.parametrize("number", [0, 2, "1", None, True])
def test_another_format_is_refused(good: dict[str, Any], number: Any) -> None:
    with pytest.raises(Trouble) as caught:
        parse({**good, "format": number})
    assert caught.value.code == "manifest_format"


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "", ".x", "-x", "x\n", "x" * 200, "manifest.json", "vmlinuz"])
def test_a_file_name_cannot_leave_the_directory(good: dict[str, Any], name: str) -> None:
    good["artifacts"]["initrd"]["file"] = name
    with pytest.raises(Trouble, match=r"manifest\.json cannot be used"):
        parse(good)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "mips"},
        {"command_line": "a\nb"},
        {"command_line": "x" * 3000},
        {"artifacts": {"kernel": {"file": "k", "size": 0, "sha256": "0" * 64}}},
        {"artifacts": {"kernel": {"file": "k", "size": -1, "sha256": "0" * 64}}},
        {"artifacts": {"kernel": {"file": "k", "size": 1, "sha256": "0" * 63}}},
        {"artifacts": {"kernel": {"file": "k", "size": 1, "sha256": "A" * 64}}},
        {"artifacts": {"kernel": {"file": "k", "size": "1", "sha256": "0" * 64}}},
        {"artifacts": []},
        {"name": 3},
        {"verity": {"root_hash": "0"}},
    ],
)
def test_a_wrong_field_is_refused(good: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(Trouble) as caught:
        parse({**good, **change})
    assert caught.value.code == "bad_manifest"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"format": 1, "format": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[" * 100_000,
        b" " * (MAX_BYTES + 1),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(Trouble) as caught:
        parse_manifest(data, source="manifest.json")
    assert caught.value.code == "bad_manifest"
