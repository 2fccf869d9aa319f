"""Rules of docs/protocol.md about sessions, and both clients, against a real coworkd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from coworkd.client import Client, connect
from coworkd.client.aio import connect as connect_trio
from coworkd.model.errors import AlreadyExists, CoworkError, InvalidState, NotFound
from coworkd.model.policy import LimitsRequest
from coworkd.model.session import FolderGrant
from tests.root.conftest import Daemon
from tests.root.live import wait_until


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with connect(daemon.uri) as made:
        yield made


@pytest.fixture
def session(client: Client) -> Iterator[str]:
    client.session_ensure(name="protocol")
    yield "protocol"
    client.session_delete(session="protocol", force=True)


def test_ensure_twice_is_the_same_session(client: Client, session: str) -> None:
    again = client.session_ensure(name=session)
    assert not again.created
    assert again.session == client.session_get(session=session).session


def test_ensure_new_wants_none_and_existing_wants_one(client: Client, session: str) -> None:
    with pytest.raises(AlreadyExists):
        client.session_ensure(name=session, resume="new")
    with pytest.raises(NotFound):
        client.session_ensure(name="protocol-none", resume="existing")


def test_what_is_cut_by_the_ceiling_is_told(client: Client, session: str) -> None:
    asked = LimitsRequest(nofile=2**20)
    assert any("nofile" in sentence for sentence in client.session_ensure(name=session, limits=asked).narrowed)


def test_a_required_folder_fails_the_call_and_an_optional_one_is_told(
    client: Client, session: str, tmp_path: Path
) -> None:
    missing = str(tmp_path / "none")
    told = client.session_ensure(
        name=session, folders=[FolderGrant(name="f", source=missing, mode="ro", required=False)]
    )
    assert [folder.name for folder in told.failed_folders] == ["f"]
    with pytest.raises(CoworkError):
        client.session_ensure(name=session, folders=[FolderGrant(name="f", source=missing, mode="ro")])
    client.session_ensure(name=session, folders=[])


def test_an_ephemeral_session_ends_with_its_link(daemon: Daemon, client: Client) -> None:
    with connect(daemon.uri) as other:
        other.session_ensure(name="protocol-ephemeral", ephemeral=True)
        other.start("protocol-ephemeral", ["sleep", "60"])
    wait_until(
        lambda: all(each.name != "protocol-ephemeral" for each in client.session_list().sessions), "the session goes"
    )


def test_delete_of_a_session_that_is_busy_needs_force(client: Client, session: str) -> None:
    with client.start(session, ["sleep", "60"]), pytest.raises(InvalidState):
        client.session_delete(session=session)


def test_communicate_moves_more_than_any_buffer_holds(client: Client, session: str) -> None:
    data = bytes(range(256)) * 40_000
    with client.start(session, ["cat"], stdin=True) as process:
        collected = process.communicate(data)
    assert collected.streams["stdout"] == data
    assert collected.exit.exit.code == 0


def test_output_nobody_reads_for_long_is_all_there_with_block(client: Client, session: str) -> None:
    with client.start(session, ["head", "-c", "40000000", "/dev/zero"], on_full="block") as process:
        for _ in range(500):
            client.ping()
        assert sum(len(piece.data) for piece in process) == 40_000_000


def test_the_trio_client_does_the_same(daemon: Daemon, session: str) -> None:
    data = bytes(range(256)) * 40_000

    async def main() -> None:
        async with await connect_trio(daemon.uri) as client:
            async with await client.start(session, ["cat"], stdin=True) as process:
                collected = await process.communicate(data)
            assert collected.streams["stdout"] == data
            ran = await client.run(session, ["sh", "-c", "exit 7"])
            assert ran.exit.code == 7

    trio.run(main)
