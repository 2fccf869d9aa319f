"""An update in a guest: an exFAT disk that this repository has written, mounted by the guest's kernel, taken, run, and gone back from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd import __version__
from coworkd.client.sync import Client
from coworkd.model.calls_update import UpdateStatus
from coworkd.model.errors import CoworkError, InvalidState
from host_stub.release_key import compose_public_key, make_key
from host_stub.update_disk import write_update_disk
from host_stub.words import Disk
from tests.root.update_lab import make_release
from tests.vm.guest_lab import Guest

_SWITCH_S = 600.0


def trust(guest: Guest, key: bytes) -> None:
    """As an image built with `--update-key`: the key is read when coworkd starts."""
    text = '[update]\nkey = "/run/update.pub"\ncommit_s = 2\n'
    guest.shell.check(
        f"cat >/run/update.pub <<'E'\n{key.decode()}E\ncat >>/etc/coworkd/coworkd.toml <<'E'\n\n{text}E\n"
    )
    guest.shell.check("systemctl restart coworkd", timeout_s=300)


def wait_for(guest: Guest, wanted: Callable[[UpdateStatus], bool]) -> tuple[Client, UpdateStatus]:
    """A client of the coworkd that is as `wanted`."""
    deadline = time.monotonic() + _SWITCH_S
    while True:
        with contextlib.suppress(CoworkError):
            client = guest.connect()
            status = client.update_status()
            if wanted(status):
                return client, status
            client.close()
        assert time.monotonic() < deadline, guest.serial()[-4000:]
        time.sleep(0.5)


def test_an_exfat_disk_brings_a_release_that_can_be_gone_back_from(guest: Guest, tmp_path: Path) -> None:
    key, image = make_key(), tmp_path / "update.img"
    write_update_disk(make_release(tmp_path / "9.1", "9.1", key), image)
    guest.connect()
    trust(guest, compose_public_key(key.public))
    client, _ = wait_for(guest, lambda status: status.enabled)
    client.session_ensure(name="lives-on")
    client.start("lives-on", ["sleep", "600"])
    guest.plug_disk(Disk(path=image, serial="a-stick", read_only=True))
    deadline = time.monotonic() + 240
    while "a-stick" not in guest.shell.run("cat /sys/block/*/serial").output:
        assert time.monotonic() < deadline, "the disk did not come"
        time.sleep(0.2)

    assert client.update_apply().restarting
    client, status = wait_for(guest, lambda status: status.running == "a" and status.floor == "9.1")
    assert client.hello.version == status.version == "9.1"
    assert [process.state for process in client.process_list().processes] == ["running"]
    said = guest.shell.check("journalctl -u coworkd -o cat --no-pager | grep updater || true") + guest.serial()
    assert "[updater] mounted smol-bin device /dev/vd" in said
    assert "[updater] checking for updates from /smol/bin" in said
    assert guest.shell.run("mountpoint /smol/bin").status != 0

    with pytest.raises(InvalidState):
        client.update_apply()
    assert client.update_rollback().slot == "0"
    client, status = wait_for(guest, lambda status: status.running == "0")
    assert client.hello.version == __version__
    assert [process.state for process in client.process_list().processes] == ["running"]
