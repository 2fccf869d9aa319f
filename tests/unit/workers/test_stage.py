from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coworkd.model.stage import (
    CommitStaged,
    ForgetStage,
    FromStage,
    ListStaged,
    Progress,
    StageCommitted,
    StagedListed,
    StageForgotten,
    ToStage,
)
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers import stage
from tests.unit.workers.staged_folder import StagedFolder


class Talk:
    """coworkd's end of a worker that runs in a thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self._theirs = theirs
        self._link: WorkerSocket[FromStage] = WorkerSocket(ours, msgspec.msgpack.Decoder(FromStage))
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        with self._theirs:
            stage.serve(self._theirs)

    def ask(self, request: ToStage) -> list[FromStage]:
        """What is said until the answer, that included."""
        self._link.send(request)
        heard: list[FromStage] = []
        while not heard or isinstance(heard[-1], Progress):
            received = self._link.receive()
            assert received is not None
            heard.append(received[0])
        return heard

    def close(self) -> None:
        self.socket.close()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.close()


def test_requests_are_answered_in_order_until_the_end(talk: Talk, tmp_path: Path) -> None:
    folder = StagedFolder(tmp_path).prepare()
    folder.write("a", b"a")
    (listed,) = talk.ask(ListStaged(id=1, place=folder.place))
    assert isinstance(listed, StagedListed)
    assert [change.path for change in listed.changes] == [b"a"]
    (committed,) = talk.ask(CommitStaged(id=2, place=folder.place, paths=None, overwrite=False))
    assert isinstance(committed, StageCommitted)
    assert (committed.id, committed.committed) == (2, 1)


def test_it_tells_now_and_then_that_it_is_not_stuck(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PROGRESS_S", 0.0)
    folder = StagedFolder(tmp_path).prepare()
    for number in range(5):
        folder.write(str(number), b"x")
    *told, _ = talk.ask(ListStaged(id=1, place=folder.place))
    steps = [each.steps for each in told if isinstance(each, Progress)]
    assert len(steps) >= 5
    assert steps == sorted(steps)


def test_what_cannot_be_meant_ends_it(talk: Talk) -> None:
    talk.socket.send(b"\xc1")
    talk.thread.join(60)
    assert not talk.thread.is_alive()


def test_it_ends_on_the_way_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PROGRESS_S", 0.0)
    folder = StagedFolder(tmp_path).prepare()
    for number in range(3):
        folder.write(str(number), b"x")
    talk = Talk()
    talk.socket.send(msgspec.msgpack.encode(CommitStaged(id=1, place=folder.place, paths=None, overwrite=False)))
    talk.close()
    assert folder.commit().committed + len(folder.tree()) >= 3
    assert sorted(folder.tree()) == ["0", "1", "2"]


def test_forgetting_is_a_request_like_others(talk: Talk, tmp_path: Path) -> None:
    (answered,) = talk.ask(ForgetStage(id=9, path=bytes(tmp_path / "nothing")))
    assert answered == StageForgotten(id=9, freed_bytes=0)
