from __future__ import annotations

from pathlib import Path

from host_stub.manifest import parse_manifest
from imagebuild.manifest import compose_command_line, compose_manifest, describe_file
from imagebuild.verity import Verity
from tests.unit.imagebuild.tree_lab import recipe


def test_the_host_reads_what_is_written(tmp_path: Path) -> None:
    artifacts = {}
    for role in ("kernel", "initrd", "rootfs"):
        (tmp_path / role).write_bytes(role.encode())
        artifacts[role] = describe_file(tmp_path / role)
    (tmp_path / "rootfs.zst").write_bytes(b"packed")
    artifacts["rootfs"]["compressed"] = describe_file(tmp_path / "rootfs.zst")
    verity = Verity(root_hash="ab" * 32, blocks=7)
    text = compose_manifest(recipe(), version="1.2", artifacts=artifacts, packages=[("bash", "5.2")], verity=verity)
    manifest = parse_manifest(text.encode(), source="manifest.json")
    assert (manifest.version, manifest.architecture, manifest.suite) == ("1.2", "x86_64", "bookworm")
    assert set(manifest.needed("kernel")) == {"kernel", "initrd", "rootfs"}
    assert manifest.artifacts.rootfs is not None
    assert manifest.artifacts.rootfs.compressed is not None
    assert manifest.verity is not None
    assert manifest.verity.root_hash == "ab" * 32
    assert manifest.command_line.endswith(f"cowork.verity={'ab' * 32} cowork.verity_blocks=7")


def test_a_file_is_told_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    said = describe_file(tmp_path / "x")
    assert said == {
        "file": "x",
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def test_the_command_line_names_consoles_and_root() -> None:
    words = compose_command_line(recipe("aarch64")).split()
    assert words[:3] == ["console=hvc0", "console=ttyAMA0", "root=LABEL=cowork-root"]
    assert "ro" in words
