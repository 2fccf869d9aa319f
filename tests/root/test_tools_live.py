"""Tools as commands find them: installed into sessions that are open, switched under running commands, and never writable."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coworkd.client import Client, connect
from coworkd.model.errors import InvalidParams
from coworkd.model.names import OsBytes
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import session_of

pytestmark = [pytest.mark.root, pytest.mark.needs("root"), pytest.mark.needs("bubblewrap")]

PLACE = Path("/opt/tools")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The image has the mount point; other machines have it for the time of these tests."""
    made = not PLACE.exists()
    if made:
        PLACE.mkdir(parents=True)
    try:
        with running_daemon(tmp_path_factory.mktemp("tools")) as running:
            yield running
    finally:
        if made:
            with suppress(OSError):
                PLACE.rmdir()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with connect(daemon.uri) as made:
        yield made


def put(client: Client, directory: Path, version: str, script: bytes) -> None:
    file = directory / f"agent-{version}"
    file.write_bytes(script)
    client.tool_install(
        name="agent",
        version=version,
        sha256=hashlib.sha256(script).hexdigest(),
        source=OsBytes(os.fsencode(file)),
    )


def test_an_open_session_gets_a_tool_and_a_running_command_keeps_its_own(client: Client, tmp_path: Path) -> None:
    with session_of(client, "toolish") as session:
        put(client, tmp_path, "1", b"#!/bin/sh\necho one\nread line\nexec cat $0\n")
        with client.start(session, ["agent"], stdin=True) as running:
            piece = running.read(timeout_s=60)
            assert piece is not None
            assert piece.data == b"one\n"
            put(client, tmp_path, "2", b"#!/bin/sh\necho two\n")
            assert client.run(session, ["agent"]).stdout == b"two\n"
            running.write_stdin(b"go on\n")
            rest = b"".join(piece.data for piece in running)
            assert running.wait().exit.code == 0
        assert rest == b"#!/bin/sh\necho two\n"  # the name leads to the new one, what was open stays open
        client.tool_remove(name="agent")
        assert client.run(session, ["sh", "-c", "command -v agent"]).exit.code == 127


def test_no_session_changes_a_tool(client: Client, tmp_path: Path) -> None:
    with session_of(client, "hostile") as session:
        put(client, tmp_path, "1", b"#!/bin/sh\necho one\n")
        tries = (
            "echo x > /opt/tools/bin/agent",
            "rm /opt/tools/bin/agent",
            "touch /opt/tools/agent/1/root/new",
            "mv /opt/tools/agent/1 /tmp/",
            "ln -s /bin/sh /opt/tools/bin/other",
        )
        for line in tries:
            assert client.run(session, ["sh", "-c", line]).exit.code != 0, line
        assert client.run(session, ["agent"]).stdout == b"one\n"
        client.tool_remove(name="agent")


def test_set_id_bits_of_an_archive_do_not_come_along(client: Client, tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        entry = tarfile.TarInfo("bin/agent")
        entry.mode, entry.size = 0o6755, 18
        tar.addfile(entry, io.BytesIO(b"#!/bin/sh\nid -u; :"))
    (tmp_path / "agent.tgz").write_bytes(data.getvalue())
    with session_of(client, "archived") as session:
        answer = client.tool_install(
            name="agent",
            version="3",
            sha256=hashlib.sha256(data.getvalue()).hexdigest(),
            source=OsBytes(os.fsencode(tmp_path / "agent.tgz")),
        )
        assert answer.tool.commands == ("agent",)
        assert client.run(session, ["stat", "-Lc", "%a", "/opt/tools/bin/agent"]).stdout == b"755\n"
        assert client.run(session, ["agent"]).exit.code == 0
        client.tool_remove(name="agent")


def test_a_file_of_another_digest_is_not_there(client: Client, tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"#!/bin/sh\n")
    with pytest.raises(InvalidParams, match="SHA-256"):
        client.tool_install(name="agent", version="4", sha256="0" * 64, source=OsBytes(os.fsencode(tmp_path / "agent")))
    assert client.tool_list().tools == ()
