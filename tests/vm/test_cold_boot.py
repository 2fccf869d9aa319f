"""A guest from its kernel's first instruction to an answer over vsock, for both architectures; and what it is made of then.

How long that took is printed (`make test-vm ARGS="-rP -k cold_boot"`) and judged by nobody: it is emulated, beside whatever else runs.
"""

from __future__ import annotations

import pytest

from coworkd.client.sync import Client
from coworkd.model.session import FolderGrant
from tests.vm.guest_lab import Guest


def answer_of(guest: Guest) -> Client:
    """The first answer, its time told in the test's output."""
    if guest.answered_after_s is None:
        guest.connect(ready=False).close()
    print(f"{guest.spec.architecture}: answered after {guest.answered_after_s:.1f} s")
    return guest.connect()


@pytest.mark.parametrize("fixture", ["cold_guest", "arm_guest"])
def test_a_guest_answers_and_comes_up_whole(fixture: str, request: pytest.FixtureRequest) -> None:
    guest: Guest = request.getfixturevalue(fixture)
    client = answer_of(guest)
    missing = {part: why for part, why in client.hello.degraded.items() if part != "share" or guest.spec.shares}
    assert missing == {}
    assert client.info().machine == guest.spec.architecture


@pytest.mark.parametrize("fixture", ["cold_guest", "arm_guest"])
def test_a_command_runs_in_its_sandbox(fixture: str, request: pytest.FixtureRequest) -> None:
    guest: Guest = request.getfixturevalue(fixture)
    client = guest.connect()
    client.session_ensure(name="first")
    ran = client.run("first", ["sh", "-c", "uname -m; id -u; hostname; ls /sessions"])
    machine, uid, host, sessions = ran.stdout.decode().splitlines()
    assert (machine, host, sessions) == (guest.spec.architecture, "claude", "first")
    assert int(uid) >= 1001
    client.session_delete(session="first", force=True)


def test_the_session_disk_is_found_on_nvme(cold_guest: Guest) -> None:
    usage = cold_guest.connect().storage_usage()
    assert usage.state == "ok"
    assert "nvme" in str(usage)


def test_a_folder_of_the_host_comes_by_virtiofs(cold_guest: Guest) -> None:
    client = cold_guest.connect()
    cold_guest.wait_for_share()
    client.session_ensure(name="shared", folders=[FolderGrant(name="work", source=".", mode="ro")])
    ran = client.run("shared", ["cat", "mnt/work/hello"])
    assert ran.stdout == b"from the host\n", ran.stderr
    client.session_delete(session="shared", force=True)
