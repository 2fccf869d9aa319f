"""`create`, `renew`, `grow`, `rm` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_stub import session_disk
from host_stub.bundle import Bundle, open_bundle
from host_stub.bundle_files import no_progress
from host_stub.cli.main import main
from host_stub.keeper_lock import hold_lock
from tests.unit.host_stub.image_lab import make_image


def test_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    make_image(tmp_path / "image", architecture="aarch64")
    words = "create --cpus 3 --memory 512M --disk 64M --session-bus nvme --restart always --egress-allow-private --network nat"
    place = ["--bundle", str(tmp_path / "vm"), "--image", str(tmp_path / "image")]
    assert main([*words.split(), *place, "--command-line", "quiet"]) == 0
    made = open_bundle(tmp_path / "vm")
    settings = made.settings
    assert (settings.architecture, settings.cpus, settings.memory_bytes) == ("aarch64", 3, 512 << 20)
    assert (settings.session_bus, settings.restart, settings.network) == ("nvme", "always", "nat")
    assert (settings.egress.allow_private, settings.command_line) == (True, "quiet")
    assert session_disk.look_at(made.session_disk).size_bytes == 64 << 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--memory 1M", "bad_settings"),
        ("--architecture aarch64", "wrong_architecture"),
        ("--disk 1M", "bad_size"),
        ("--image none", "no_image"),
        ("--update-disk none", "no_file"),
        ("--egress-settings none", "no_file"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_image(tmp_path / "image")
    assert main(["create", "--bundle", str(tmp_path / "vm"), "--image", str(tmp_path / "image"), *words.split()]) == 1
    assert f"[{said}]" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_an_image_is_renewed(bundle: Bundle, tmp_path: Path) -> None:
    make_image(tmp_path / "newer", salt=b"v2", version="2")
    assert main(["renew", "--bundle", str(bundle.path), "--image", str(tmp_path / "newer")]) == 0
    assert open_bundle(bundle.path).manifest.version == "2"


def test_a_disk_is_grown_and_never_made_smaller(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--bundle", str(bundle.path)]
    assert main(["grow", *place, "128M"]) == 0
    assert session_disk.look_at(bundle.session_disk).size_bytes == 128 << 20
    assert main(["grow", *place, "64M"]) == 1
    assert "[would_shrink]" in capsys.readouterr().err


def test_a_machine_whose_manifest_is_damaged_can_be_renewed(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle.path / "manifest.json").chmod(0o600)
    (bundle.path / "manifest.json").write_bytes(b"{")
    assert main(["up", "--bundle", str(bundle.path)]) == 1
    assert "cowork-vm renew" in capsys.readouterr().err
    make_image(tmp_path / "image")
    assert main(["renew", "--bundle", str(bundle.path), "--image", str(tmp_path / "image")]) == 0
    assert open_bundle(bundle.path).check(no_progress) == ()


@pytest.mark.parametrize("words", [["renew", "--image", "."], ["grow", "128M"], ["rm", "--yes"]])
def test_a_bundle_that_is_held_is_not_changed(
    bundle: Bundle, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_lock(bundle):
        assert main([words[0], "--bundle", str(bundle.path), *words[1:]]) == 1
    assert "[already_running]" in capsys.readouterr().err
    assert session_disk.look_at(bundle.session_disk).size_bytes == 64 << 20


def test_nothing_is_deleted_without_a_yes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert main(["rm", "--bundle", str(bundle.path)]) == 130
    assert bundle.path.exists()
    assert main(["rm", "--bundle", str(bundle.path), "--yes"]) == 0
    assert not bundle.path.exists()
