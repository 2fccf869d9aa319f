import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.model import files as words
from coworkd.workers import files
from tests.unit.workers.files_talk import Talk, talking, upload, write


@pytest.fixture(scope="module")
def worker() -> Iterator[Talk]:
    with talking() as talk:
        yield talk


def test_what_is_written_is_read_back_and_stated(worker: Talk, tmp_path: Path) -> None:
    assert worker.ask(write(tmp_path / "a", b"hello", mode=0o640), words.WholeWritten).size == 5
    answer = worker.read(tmp_path / "a")
    assert (answer.data, answer.size, answer.eof) == (b"hello", 5, True)
    seen = worker.ask(words.LookAt(id=0, path=os.fsencode(tmp_path / "a")), words.LookedAt).stat
    assert (seen.name, seen.kind, seen.size, seen.mode) == (b"a", "file", 5, 0o640)


def test_a_message_over_64_kib_goes_both_ways(worker: Talk, tmp_path: Path) -> None:
    data = os.urandom(1024 * 1024)
    worker.ask(write(tmp_path / "big", data), words.WholeWritten)
    assert worker.read(tmp_path / "big").data == data


def test_a_mode_is_as_asked_for_whatever_the_umask(worker: Talk, tmp_path: Path) -> None:
    worker.ask(write(tmp_path / "open", b"", mode=0o666), words.WholeWritten)
    assert os.stat(tmp_path / "open").st_mode & 0o777 == 0o666


def test_a_request_that_waits_holds_no_other_up(worker: Talk, tmp_path: Path) -> None:
    """A download nobody reads stands; everything else goes on."""
    (tmp_path / "big").write_bytes(bytes(4 * 1024 * 1024))
    _, transfer = worker.transfer(words.Download(id=0, path=os.fsencode(tmp_path / "big"), tar=False))
    assert worker.read(tmp_path / "big", limit=10).data == bytes(10)
    transfer.close()


def test_more_transfers_than_there_may_be_are_refused_and_their_sockets_closed(tmp_path: Path) -> None:
    with talking() as talk:
        begun = [talk.transfer(upload(tmp_path / f"f{n}")) for n in range(words.TRANSFERS_PER_WORKER)]
        assert all(isinstance(answer, words.FileDone) for answer, _ in begun)
        refusal, refused = talk.transfer(upload(tmp_path / "more"))
        assert isinstance(refusal, words.FileFault)
        assert refusal.stage == "transfers"
        assert refused.stream.recv(1) == b""
        refused.close()
        for number, (_, transfer) in enumerate(begun):
            assert isinstance(transfer.finish(0), words.Moved), number
        assert isinstance(talk.upload(tmp_path / "again", b"x"), words.Moved)


def test_requests_of_many_threads_are_each_answered_once(worker: Talk, tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / str(number)).write_bytes(str(number).encode())
    ids = {}
    sender = threading.Thread(
        target=lambda: ids.update(
            {
                worker.send(words.ReadSome(id=0, path=os.fsencode(tmp_path / str(n)), offset=0, limit=9)): n
                for n in range(200)
            }
        )
    )
    sender.start()
    answers = [worker.receive() for _ in range(200)]
    sender.join()
    told = {answer.id: answer.data for answer in answers if isinstance(answer, words.SomeRead)}
    assert told == {number: str(n).encode() for number, n in ids.items()}


def test_without_a_thread_calls_are_done_and_transfers_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that has as many processes as it may must still be looked at and cleaned up."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=files._Worker(theirs).run, daemon=True)
    thread.start()

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with ours, theirs:
        talk = Talk(ours, os.getpid())
        for _ in range(2 * files.REQUESTS):
            assert talk.ask(write(tmp_path / "a", b"x"), words.WholeWritten).size == 1
            refusal, transfer = talk.transfer(upload(tmp_path / "b"))
            assert isinstance(refusal, words.FileFault)
            assert refusal.stage == "transfers"
            assert transfer.stream.recv(1) == b""
            transfer.close()
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    assert os.listdir(tmp_path) == ["a"]


def test_a_message_that_is_none_ends_the_worker() -> None:
    with talking(status=1) as talk:
        talk.connection.send(b"\xc1")
        assert talk.connection.recv(1) == b""
