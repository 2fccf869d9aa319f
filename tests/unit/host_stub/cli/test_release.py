"""From a key to an update disk, by the command line alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.release.manifest import MANIFEST, parse_manifest
from host_stub.cli.main import TROUBLE_STATUS, USAGE_STATUS, main
from tests.unit.host_stub.test_exfat import Reader


@pytest.fixture
def package(tmp_path: Path) -> Path:
    code = tmp_path / "from" / "coworkd"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text("VALUE = 7\n")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ceiling.toml").write_text("")
    return code


def run(*words: object) -> int:
    return main(["release", *map(str, words)])


def test_a_key_a_release_a_signature_a_disk(tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, image = tmp_path / "release", tmp_path / "update.img"
    assert run("keygen", "vendor", "--directory", tmp_path) == 0
    assert run("build", target, "--code", package, "--policies", tmp_path / "policies") == 0
    assert run("sign", target, "--key", tmp_path / "vendor.key", "--version", "1.2", "--architecture", "aarch64") == 0
    assert run("disk", target, image) == 0
    files = Reader(image.read_bytes()).files()
    manifest = parse_manifest(files[MANIFEST])
    assert (manifest.version, manifest.architecture, manifest.contents) == ("1.2", "aarch64", ("code", "policies"))
    assert "1.2" in capsys.readouterr().err


def test_policies_alone_have_no_python(tmp_path: Path, package: Path) -> None:
    target = tmp_path / "release"
    assert run("keygen", "vendor", "--directory", tmp_path) == 0
    assert run("build", target, "--no-code", "--policies", tmp_path / "policies") == 0
    assert run("sign", target, "--key", tmp_path / "vendor.key", "--version", "1.2") == 0
    manifest = parse_manifest((target / MANIFEST).read_bytes())
    assert (manifest.contents, manifest.python) == (("policies",), ())


def test_a_release_of_nothing_is_refused(tmp_path: Path) -> None:
    assert run("build", tmp_path / "release", "--no-code") == USAGE_STATUS


def test_a_bad_version_is_told_in_one_sentence(
    tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "release"
    run("keygen", "vendor", "--directory", tmp_path)
    run("build", target, "--code", package)
    assert run("sign", target, "--key", tmp_path / "vendor.key", "--version", "1.2rc1") == TROUBLE_STATUS
    assert "1.2rc1" in capsys.readouterr().err
    assert not (target / MANIFEST).exists()


def test_an_unsigned_release_becomes_no_disk(tmp_path: Path, package: Path) -> None:
    target = tmp_path / "release"
    run("build", target, "--code", package)
    assert run("disk", target, tmp_path / "update.img") == TROUBLE_STATUS
    assert not (tmp_path / "update.img").exists()
