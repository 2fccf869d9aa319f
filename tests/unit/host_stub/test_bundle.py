"""Bundles: made whole or not at all, opened, renewed, removed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from coworkd.wire.endpoint import HybridEndpoint, parse_endpoint
from host_stub import bundle as bundle_module
from host_stub import bundle_image, session_disk
from host_stub.bundle import MAX_PATH_BYTES, Bundle, choose_cid, create_bundle, open_bundle, remove_bundle, renew_image
from host_stub.bundle_files import no_progress, write_whole
from host_stub.bundle_settings import EgressSettings, Settings
from host_stub.words import Trouble
from tests.unit.host_stub.image_lab import make_bundle, make_image


def code_of(attempt: object) -> str:
    with pytest.raises(Trouble) as caught:
        attempt()  # type: ignore[operator]
    assert caught.value.remedy
    return caught.value.code


def test_a_new_bundle_can_be_booted(tmp_path: Path) -> None:
    made = make_bundle(tmp_path, cpus=3, command_line="quiet", update_disk="/up.img", session_bus="nvme")
    assert made.check(no_progress) == ()
    assert made.path.stat().st_mode & 0o777 == 0o700
    spec = open_bundle(made.path).spec()
    assert [(disk.path.name, disk.serial, disk.bus, disk.read_only) for disk in spec.disks] == [
        ("rootfs.img", "cowork-root", "virtio", True),
        ("sessions.img", "cowork-sessions", "nvme", False),
        ("up.img", "smol-bin", "virtio", True),
    ]
    assert (spec.kernel, spec.initrd) == (made.path / "vmlinuz", made.path / "initrd.img")
    assert spec.command_line == "console=ttyS0 root=LABEL=cowork-root quiet"
    assert spec.shares[0].path == made.path / "share"
    assert made.uri == f"hybrid://{made.path}/run/vsock.sock?port=5005"


def test_a_bundle_that_boots_by_efi_has_one_disk(tmp_path: Path) -> None:
    made = make_bundle(tmp_path, boot="efi")
    made.check(no_progress)
    spec = made.spec()
    assert (spec.kernel, spec.command_line, spec.disks[0].path.name) == (None, "", "disk.img")
    assert not (made.path / "vmlinuz").exists()


def test_a_path_of_any_characters_is_an_address(tmp_path: Path) -> None:
    (tmp_path / "a b?c#d%20").mkdir()
    endpoint = parse_endpoint(make_bundle(tmp_path / "a b?c#d%20").uri)
    assert isinstance(endpoint, HybridEndpoint)
    assert endpoint.path == str(tmp_path / "a b?c#d%20/vm/run/vsock.sock")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    made.session_disk.write_bytes(b"mine")
    assert code_of(lambda: make_bundle(tmp_path)) == "bundle_there"
    assert made.session_disk.read_bytes() == b"mine"


def test_a_create_that_fails_leaves_nothing(tmp_path: Path) -> None:
    make_image(tmp_path / "image")
    (tmp_path / "image/rootfs.img.zst").write_bytes(b"other")
    settings = Settings(architecture="x86_64")

    def attempt() -> None:
        create_bundle(tmp_path / "vm", tmp_path / "image", settings, session_disk_bytes=64 << 20, progress=no_progress)

    assert code_of(attempt) == "damaged_image"
    assert os.listdir(tmp_path) == ["image"]


def test_what_a_killed_create_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".vm.new-77").mkdir()
    (tmp_path / ".vm.new-78").mkdir()
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: pid == 78)
    make_bundle(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".vm.new-78", "image", "vm"]


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    assert code_of(lambda: make_bundle(tmp_path, architecture="aarch64")) == "wrong_architecture"
    made = make_bundle(tmp_path)
    make_image(tmp_path / "arm", architecture="aarch64")
    assert code_of(lambda: renew_image(made, tmp_path / "arm", progress=no_progress)) == "wrong_architecture"
    (made.path / "manifest.json").write_bytes((tmp_path / "arm/manifest.json").read_bytes())
    assert code_of(lambda: open_bundle(made.path).check(no_progress)) == "wrong_architecture"


def test_a_lost_session_disk_stops_the_boot(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    made.session_disk.unlink()
    assert code_of(lambda: made.check(no_progress)) == "no_session_disk"
    assert not made.session_disk.exists()


def test_a_share_without_its_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    made = make_bundle(tmp_path, share=str(tmp_path / "files"))
    assert code_of(lambda: made.check(no_progress)) == "no_share"
    (tmp_path / "files/shared").mkdir()
    made.check(no_progress)


@pytest.mark.parametrize("spoil", ["file", "dangling", "nothing"])
def test_nothing_a_guest_does_to_its_share_keeps_a_bundle_from_being_opened(tmp_path: Path, spoil: str) -> None:
    made = make_bundle(tmp_path)
    shared = made.path / "share/shared"
    shared.rmdir()
    if spoil == "file":
        shared.write_bytes(b"")
    elif spoil == "dangling":
        shared.symlink_to(tmp_path / "outside")
    opened = open_bundle(made.path)
    assert not (tmp_path / "outside").exists()
    if spoil != "nothing":
        assert code_of(lambda: opened.check(no_progress)) == "no_share"


@pytest.mark.parametrize("share", ["", "vm", "vm/state", "other/../vm", "link"])
def test_a_share_that_holds_the_machine_is_neither_made_nor_booted(tmp_path: Path, share: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    settings = {"share": str(tmp_path / share)}
    assert code_of(lambda: make_bundle(tmp_path, **settings)) == "bad_share"
    made = make_bundle(tmp_path)
    (tmp_path / share / "shared").mkdir()
    edited = Bundle(made.path, replace(made.settings, **settings), made.manifest)
    assert code_of(lambda: edited.check(no_progress)) == "bad_share"


def test_a_list_of_hosts_within_the_share_is_refused(tmp_path: Path) -> None:
    listed = tmp_path / "files/shared/srt.json"
    listed.parent.mkdir(parents=True)
    egress = EgressSettings(settings=str(listed))
    assert code_of(lambda: make_bundle(tmp_path, share=str(tmp_path / "files"), egress=egress)) == "bad_share"


def test_renewing_keeps_the_session_disk(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    session_disk.grow(made.session_disk, 128 << 20)
    make_image(tmp_path / "newer", salt=b"v2", version="2")
    renewed = renew_image(made, tmp_path / "newer", progress=no_progress)
    assert renewed.manifest.version == "2"
    assert renewed.check(no_progress) == ()
    assert (renewed.path / "rootfs.img").read_bytes()[:2] == b"v2"
    assert session_disk.look_at(renewed.session_disk).size_bytes == 128 << 20


@pytest.mark.parametrize("step", range(1, 6))
def test_a_renewal_that_ends_anywhere_boots_nothing_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """After it the bundle is refused or boots one image whole: never parts of two."""
    made = make_bundle(tmp_path)
    make_image(tmp_path / "newer", salt=b"v2", version="2")
    writes = iter(range(1, 99))
    genuine = write_whole

    def dying(*args: object, **options: object) -> None:
        if next(writes) == step:
            raise KeyboardInterrupt
        genuine(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle_image, "write_whole", dying)
    monkeypatch.setattr(bundle_module, "write_whole", dying)
    with pytest.raises(KeyboardInterrupt):
        renew_image(made, tmp_path / "newer", progress=no_progress)
    monkeypatch.undo()
    reopened = open_bundle(made.path)
    assert outcome_of(reopened) in (None, "damaged_image")
    whole = renew_image(reopened, tmp_path / "newer", progress=no_progress)
    assert whole.check(no_progress) == ()


def outcome_of(bundle: Bundle) -> str | None:
    try:
        bundle.check(no_progress)
    except Trouble as trouble:
        return trouble.code
    return None


def test_no_bundle_and_no_image_are_told(tmp_path: Path) -> None:
    assert code_of(lambda: open_bundle(tmp_path)) == "no_bundle"
    made = make_bundle(tmp_path)
    (made.path / "manifest.json").unlink()
    assert code_of(lambda: open_bundle(made.path)) == "no_image"
    (made.path / "bundle.json").write_text(json.dumps({"architecture": "x86_64", "memory": 1}))
    assert code_of(lambda: open_bundle(made.path)) == "bad_settings"


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * MAX_PATH_BYTES)
    assert code_of(lambda: open_bundle(deep)) == "path_too_long"


def test_a_removed_bundle_is_gone(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    remove_bundle(made)
    assert not made.path.exists()


def test_what_a_guest_has_shut_is_removed_with_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_bundle(tmp_path)
    shut = made.path / "share/shared/shut"
    (shut / "within").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (shut / "within/link").symlink_to(outside)
    (shut / "within").chmod(0)
    shut.chmod(0)
    modes: list[int] = []
    remove = shutil.rmtree

    def removing(path: Path) -> None:
        modes.extend(each.stat().st_mode & 0o777 for each in (shut, shut / "within"))
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", removing)
    remove_bundle(made)
    assert (modes, made.path.exists()) == ([0o700, 0o700], False)
    assert outside.stat().st_mode & 0o777 == 0o500


def test_addresses_are_ones_a_guest_may_have() -> None:
    assert all(3 <= choose_cid() < 0xFFFF_FFFF for _ in range(100))
