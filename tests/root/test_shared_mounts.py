"""Under systemd every mount of the guest is shared: what is mounted in a session must not appear in the guest, nor the other way."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.model.session import FolderGrant
from tests.root.conftest import running_daemon
from tests.root.live import client_of, session_of

pytestmark = pytest.mark.needs("bubblewrap", "mountns")
SHARED = ("unshare", "--mount", "--propagation", "shared")


def test_mounts_of_a_session_stay_in_it_where_the_guests_are_shared(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with running_daemon(tmp_path / "coworkd", through=SHARED) as daemon, client_of(daemon) as client:
        mountinfo = Path(f"/proc/{daemon.child.pid}/mountinfo")
        before = mountinfo.read_text()
        assert " shared:" in before
        folder = FolderGrant(name="work", source=str(source), mode="rw")
        with session_of(client, "shared", folders=[folder]) as session:
            assert client.run(session, ["ls", "mnt"]).stdout == b"work\n"
            assert [line for line in mountinfo.read_text().splitlines() if line not in before] == []
        assert [line for line in mountinfo.read_text().splitlines() if line not in before] == []
