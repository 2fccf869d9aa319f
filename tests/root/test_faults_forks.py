"""The launcher cannot fork, by a limit (EAGAIN), for memory (ENOMEM) or for a hang: that is told, leaves nothing, and passes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, StartFailed
from coworkd.model.names import OsBytes
from tests.root.accounting import all_well_again
from tests.root.conftest import Daemon, running_daemon
from tests.root.failing_forks import Forks
from tests.root.folder_room import name_of
from tests.root.live import children_of, client_of, exited, session_of

pytestmark = pytest.mark.needs("bubblewrap")
ROUNDS = 12
"""More than wait ahead in the launcher: those need no fork any more."""
NO_FORK = pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM], ids=errno.errorcode.__getitem__)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Forks]]:
    directory = tmp_path_factory.mktemp("forks")
    forks = Forks(directory / "listener.sock")
    with running_daemon(directory / "d", through=forks.through) as running:
        yield running, forks
    forks.close()


@pytest.fixture(scope="module")
def client(started: tuple[Daemon, Forks]) -> Iterator[Client]:
    with client_of(started[0]) as made:
        yield made


@pytest.fixture(scope="module")
def session(client: Client) -> Iterator[str]:
    with session_of(client, "forks") as name:
        yield name


@pytest.fixture(autouse=True)
def all_is_well_again(started: tuple[Daemon, Forks], client: Client, session: str) -> Iterator[None]:
    """Behind each test the next command runs, and nothing is left of those that could not."""
    daemon, _ = started
    with all_well_again(daemon, client, session):
        yield


@NO_FORK
def test_a_command_for_which_the_launcher_cannot_fork_is_refused(
    started: tuple[Daemon, Forks], client: Client, session: str, number: int
) -> None:
    _, forks = started
    launcher = client.info().launcher_pid or 0
    # The first of the name: what it forks is called so for a moment.
    forker = next(pid for pid in children_of(launcher) if name_of(pid) == "coworkd-forker")
    with client.start(session, ["cat"], stdin=True) as other, forks.failing(forker, number):
        for _ in range(ROUNDS):
            with contextlib.suppress(StartFailed):
                assert client.run(session, ["true"]).exit == exited(0)
        for tty in (None, (24, 80)):
            failed = forks.failed
            with pytest.raises(StartFailed) as caught:
                client.start(session, ["true"], tty=tty)
            assert (caught.value.details["stage"], caught.value.details["errno"]) == ("resources", number)
            assert forks.failed > failed
        assert other.communicate(b"still here").streams["stdout"] == b"still here"


def test_a_command_is_refused_where_one_forker_after_the_other_hangs(
    started: tuple[Daemon, Forks], client: Client, session: str
) -> None:
    def run_all() -> None:
        for _ in range(ROUNDS):
            client.run(session, ["true"])

    hangs = started[1].hanging("coworkd-forker")
    with hangs, pytest.raises(StartFailed, match="the process that forks for it hangs") as caught:
        run_all()
    assert (caught.value.details["stage"], caught.value.details["errno"]) == ("resources", errno.ETIMEDOUT)


@NO_FORK
def test_a_session_for_which_the_launcher_cannot_fork_is_refused(
    started: tuple[Daemon, Forks], client: Client, number: int
) -> None:
    _, forks = started
    with forks.failing(client.info().launcher_pid, number, disturbed=True), pytest.raises(CoworkError) as caught:
        client.session_ensure(name="refused")
    assert caught.value.details.get("errno") == number, caught.value
    with session_of(client, "refused") as name:
        assert client.run(name, ["true"]).exit == exited(0)


@NO_FORK
def test_folders_and_files_for_which_the_launcher_cannot_fork_are_refused(
    started: tuple[Daemon, Forks], client: Client, tmp_path: Path, number: int
) -> None:
    _, forks = started
    (tmp_path / "seen").write_text("seen")
    with session_of(client, f"folders{number}") as name:
        with forks.failing(client.info().launcher_pid, number, disturbed=True):
            with pytest.raises(CoworkError) as caught:
                client.folder_mount(session=name, name="data", source=str(tmp_path), mode="rwd")
            assert caught.value.details.get("errno") == number, caught.value
            with pytest.raises(CoworkError) as caught:
                client.file_list(session=name, path=OsBytes(b"."))
            assert os.strerror(number) in str(caught.value), caught.value
        client.folder_mount(session=name, name="data", source=str(tmp_path), mode="rwd")
        assert client.run(name, ["cat", "mnt/data/seen"]).stdout == b"seen"
        assert [entry.path for entry in client.file_list(session=name, path=OsBytes(b"mnt/data")).entries] == [b"seen"]
