"""Disks of a guest: sessions outlive it whatever bus they are on, and a disk may come while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from coworkd.model.policy import LimitsRequest
from host_stub.words import Disk
from tests.vm.guest_lab import MIB, Guest


def test_sessions_outlive_their_guest_and_move_from_virtio_to_nvme(guest: Guest, boot: Callable[..., Guest]) -> None:
    client = guest.connect()
    client.session_ensure(name="kept")
    assert client.run("kept", ["sh", "-c", "echo mine >file; mkdir -p a/b; stat -c %u file"]).exit.code == 0
    owner = client.run("kept", ["stat", "-c", "%u", "file"]).stdout
    client.shutdown(power_off=True)
    assert guest.ended().how == "powered_off"

    again = boot(
        directory=guest.directory, session_bus="nvme", vsock=guest.directory / "w", state_dir=guest.directory / "t"
    )
    client = again.connect()
    assert [session.name for session in client.session_list().sessions] == ["kept"]
    client.session_ensure(name="kept", resume="existing")
    assert client.run("kept", ["sh", "-c", "cat file; stat -c %u file"]).stdout == b"mine\n" + owner


def test_project_quota_holds_for_a_session(guest: Guest) -> None:
    client = guest.connect()
    client.session_ensure(name="big", limits=LimitsRequest(disk_max=16 * MIB))
    ran = client.run("big", ["sh", "-c", "dd if=/dev/zero of=file bs=1M count=64 2>&1; stat -c %s file"], timeout_s=240)
    assert b"quota" in ran.stdout.lower()
    assert int(ran.stdout.split()[-1]) <= 16 * MIB


def test_a_disk_may_come_while_the_guest_runs(guest: Guest, tmp_path: Path) -> None:
    late = tmp_path / "late.img"
    late.write_bytes(b"late disk" + bytes(MIB))
    guest.plug_disk(Disk(path=late, serial="late-disk", read_only=True))
    wait = "for n in $(seq 600); do [ -e $b ] && break; sleep 0.1; done"
    assert guest.shell.check(f"b=/dev/disk/by-id/virtio-late-disk; {wait}; head -c 9 $b") == "late disk"


def test_a_launcher_that_dies_takes_the_disk_away_for_a_moment(guest: Guest) -> None:
    """systemd ends what is left of it, which unmounts; coworkd has files open there, and comes up anew on the same disk."""
    client = guest.connect()
    client.session_ensure(name="kept")
    assert client.run("kept", ["sh", "-c", "echo mine >file"]).exit.code == 0
    guest.shell.check("kill -9 $(systemctl show -P MainPID coworkd-launcher)")
    deadline = time.monotonic() + 300
    while "the session disk was unmounted" not in guest.serial():
        assert time.monotonic() < deadline, guest.serial()[-4000:]
        time.sleep(0.2)
    client = guest.connect()
    client.session_ensure(name="kept", resume="existing")
    assert client.run("kept", ["cat", "file"]).stdout == b"mine\n"
