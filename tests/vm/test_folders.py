"""The host's folders over virtiofs, in every mode, on a share that comes while the guest runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import InvalidState
from coworkd.model.policy import FolderMode
from coworkd.model.session import FolderGrant
from host_stub.words import Share
from tests.vm.guest_lab import Guest

MODES: tuple[FolderMode, ...] = ("ro", "rw", "rwd", "staged")


@pytest.fixture
def shared(guest: Guest) -> Path:
    """What the guest mounts at /mnt/.virtiofs-root/shared, with a directory for each mode."""
    place = guest.directory / "host"
    for mode in MODES:
        directory = place / "shared" / mode
        directory.mkdir(parents=True)
        (directory / "kept").write_text("the user's\n")
    (place / "shared" / "out").symlink_to("/etc")
    guest.plug_share(Share(path=place))
    guest.wait_for_share()
    return place / "shared"


def test_each_mode_means_the_same_over_virtiofs(client: Client, shared: Path) -> None:
    grants = [FolderGrant(name=mode, source=mode, mode=mode) for mode in MODES]
    assert client.session_ensure(name="work", folders=grants).failed_folders == ()

    def status(script: str) -> int | None:
        return client.run("work", ["sh", "-c", script]).exit.code

    assert status("cat mnt/*/kept") == 0
    assert status("touch mnt/ro/new") != 0
    assert status("echo one >mnt/rw/own && mv mnt/rw/own mnt/rw/named && rm mnt/rw/named") == 0
    assert status("rm mnt/rw/kept") != 0
    assert status("echo more >>mnt/rw/kept && mkdir mnt/rw/made && echo two >mnt/rw/made/own") == 0
    assert status("rm mnt/rwd/kept && echo new >mnt/rwd/new") == 0
    assert status("rm mnt/staged/kept && echo held >mnt/staged/held") == 0

    assert sorted(path.name for path in (shared / "ro").iterdir()) == ["kept"]
    assert (shared / "rw" / "kept").read_text() == "the user's\nmore\n"
    assert (shared / "rw" / "made" / "own").read_text() == "two\n"
    assert sorted(path.name for path in (shared / "rwd").iterdir()) == ["new"]
    assert sorted(path.name for path in (shared / "staged").iterdir()) == ["kept"]


def test_what_is_staged_comes_by_a_commit(client: Client, shared: Path) -> None:
    client.session_ensure(name="work", folders=[FolderGrant(name="staged", source="staged", mode="staged")])
    client.run("work", ["sh", "-c", "rm mnt/staged/kept && echo held >mnt/staged/held"])
    changes = client.folder_changes(session="work", name="staged").changes
    assert sorted((bytes(change.path), change.kind) for change in changes) == [(b"held", "added"), (b"kept", "deleted")]
    client.folder_commit(session="work", name="staged")
    assert [path.name for path in (shared / "staged").iterdir()] == ["held"]


def test_what_the_host_changes_is_seen_and_nothing_leads_out(client: Client, shared: Path) -> None:
    client.session_ensure(name="work", folders=[FolderGrant(name="rw", source="rw", mode="rw")])
    (shared / "rw" / "kept").write_text("longer than it was before\n")
    assert client.run("work", ["cat", "mnt/rw/kept"]).stdout == b"longer than it was before\n"
    with pytest.raises(InvalidState, match="symbolic link"):
        client.session_ensure(name="other", folders=[FolderGrant(name="out", source="out", mode="ro")])
