"""Tools from the host's share, in a guest whose root is read-only: they lie on the session disk, and outlive coworkd's restart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import InvalidParams, NotFound
from coworkd.model.names import OsBytes
from host_stub.words import Share
from tests.vm.guest_lab import Guest


@pytest.fixture
def share(guest: Guest) -> Path:
    """A share that is plugged in while the guest runs, as on a host that comes late with it."""
    place = guest.directory / "host"
    (place / "shared" / "tools").mkdir(parents=True)
    guest.plug_share(Share(path=place))
    return place / "shared" / "tools"


def install(client: Client, file: Path, version: str) -> None:
    client.tool_install(
        name="agent",
        version=version,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        source=OsBytes(b"tools/" + file.name.encode()),
        timeout_s=240,
    )


def test_a_tool_comes_from_the_share_and_is_switched(client: Client, share: Path, guest: Guest) -> None:
    client.session_ensure(name="toolish")
    for version in ("1", "2"):
        (share / f"agent-{version}").write_text(f"#!/bin/sh\necho version {version}\n")
    guest.wait_for_share()
    install(client, share / "agent-1", "1")
    assert client.run("toolish", ["agent"]).stdout == b"version 1\n"
    install(client, share / "agent-2", "2")
    assert client.run("toolish", ["agent"]).stdout == b"version 2\n"
    install(client, share / "agent-1", "1")
    assert client.run("toolish", ["agent"]).stdout == b"version 1\n"
    assert client.run("toolish", ["sh", "-c", "touch /opt/tools/bin/x"]).exit.code != 0

    (share / "agent-2").write_text("#!/bin/sh\necho tampered\n")
    with pytest.raises(InvalidParams, match="SHA-256"):
        client.tool_install(name="agent", version="3", sha256="0" * 64, source=OsBytes(b"tools/agent-2"))
    with pytest.raises(NotFound):
        client.tool_install(name="agent", version="4", sha256="0" * 64, source=OsBytes(b"tools/none"))
    assert [(tool.version, tool.current) for tool in client.tool_list().tools] == [("2", False), ("1", True)]
