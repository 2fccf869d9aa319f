from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from imagebuild import archive
from imagebuild.cache import Cache
from tests.unit.imagebuild.tree_lab import recipe


def argv(**other: str) -> list[str]:
    made = recipe("aarch64", **other)
    places = {
        "status": Path("/scratch/status"),
        "sources": [Path("/scratch/0.list")],
        "output": Path("/scratch/out.tar"),
    }
    return archive.compose_mmdebstrap(made, ("bash", "udev"), **places)  # type: ignore[arg-type]


def test_packages_are_unpacked_and_no_script_is_run() -> None:
    assert {"--variant=extract", "--architectures=arm64", "--include=bash,udev"} <= set(argv())
    assert argv()[-3:] == ["bookworm", "/scratch/out.tar", "/scratch/0.list"]


def test_a_keyring_is_named_only_where_one_is_given() -> None:
    assert not [word for word in argv() if word.startswith("--keyring")]
    assert "--keyring=/keys.gpg" in argv(keyring="/keys.gpg")


def test_stand_ins_are_installed_and_provide_what_they_are_known_by() -> None:
    text = archive.compose_stand_ins(["initramfs-tools", "debconf"])
    assert text.index("Package: debconf") < text.index("Package: initramfs-tools")
    assert "Provides: linux-initramfs-tool\n" in text
    assert text.count("Status: install ok installed") == 2


def test_the_archive_is_asked_once_for_one_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake_run(command: list[str], *, env: dict[str, str]) -> str:
        asked.append(next(word for word in command if word.startswith("--include=")))
        Path(command[-2]).write_bytes(b"tar")
        assert Path(command[-1]).read_text() == "deb http://mirror.test x main\n"
        return env["SOURCE_DATE_EPOCH"]

    monkeypatch.setattr(archive, "run", fake_run)
    cache = Cache(tmp_path)
    first = archive.fetch_packages(recipe(), not_needed=["bash", "debconf"], cache=cache)
    assert archive.fetch_packages(recipe(), not_needed=["bash", "debconf"], cache=cache) == first
    other = archive.fetch_packages(recipe(packages=("bash", "less")), not_needed=["debconf"], cache=cache)
    assert other != first
    assert asked == [
        "--include=bash,linux-image-cloud-amd64,systemd-boot-efi",
        "--include=bash,less,linux-image-cloud-amd64,systemd-boot-efi",
    ]


def test_versions_are_read_from_what_was_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        content = b"zlib1g 1:1.2\nbash 5.2\n"
        member = tarfile.TarInfo("./var/lib/cowork-packages")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    assert archive.read_package_versions(tmp_path / "a.tar") == [("bash", "5.2"), ("zlib1g", "1:1.2")]
