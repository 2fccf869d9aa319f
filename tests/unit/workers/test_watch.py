"""`workers.watch`: the program. By fanotify it is tried as root (tests/root/test_activity_live.py)."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coworkd.model.watch import FromWatcher, Missed, NotWatched, Seen, Unwatched, UnwatchTree, Watching, WatchTree
from coworkd.system import fanotify, packet
from coworkd.workers.watch import serve

_decoder = msgspec.msgpack.Decoder(FromWatcher)


class _Worker:
    """The worker in a thread, without fanotify."""

    def __init__(self) -> None:
        self.end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(60)
        self._far = far
        self._thread = threading.Thread(target=serve, args=(far,))
        self._thread.start()

    def say(self, message: msgspec.Struct) -> None:
        self.end.sendmsg(packet.pack(msgspec.msgpack.encode(message))[0])

    def hear(self) -> Any:
        data, ancillary, flags, _ = self.end.recvmsg(*packet.RECEIVE_ARGUMENTS)
        return _decoder.decode(packet.unpack(data, ancillary, flags)[0])

    def close(self) -> None:
        self.end.close()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._far.close()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Worker]:
    def refuse() -> int:
        raise OSError(errno.ENOSYS, "no fanotify here")

    monkeypatch.setattr(fanotify, "open_fanotify", refuse)
    made = _Worker()
    yield made
    made.close()


def test_a_tree_is_watched_until_it_is_not_any_more(worker: _Worker, tmp_path: Path) -> None:
    worker.say(WatchTree(id=1, watch=5, path=os.fsencode(tmp_path)))
    assert worker.hear() == Watching(id=1, by="inotify")
    (tmp_path / "d").mkdir()
    seen = worker.hear()
    assert isinstance(seen, Seen)
    assert [(each.watch, each.change.change, each.change.path) for each in seen.changes] == [(5, "mkdir", b"d")]
    worker.say(UnwatchTree(id=2, watch=5))
    assert worker.hear() == Unwatched(id=2)
    (tmp_path / "e").mkdir()
    worker.say(UnwatchTree(id=3, watch=77))
    assert worker.hear() == Unwatched(id=3)


def test_what_happened_before_is_told_before_the_answer(worker: _Worker, tmp_path: Path) -> None:
    worker.say(WatchTree(id=1, watch=5, path=os.fsencode(tmp_path)))
    worker.hear()
    for number in range(50):
        (tmp_path / f"{number}").mkdir()
    worker.say(UnwatchTree(id=2, watch=5))
    paths: list[bytes] = []
    while isinstance(message := worker.hear(), Seen | Missed):
        assert isinstance(message, Seen)
        paths += [each.change.path for each in message.changes]
    assert len(set(paths)) == 50
    assert message == Unwatched(id=2)


def test_what_is_not_there_is_not_watched(worker: _Worker, tmp_path: Path) -> None:
    worker.say(WatchTree(id=1, watch=5, path=os.fsencode(tmp_path / "nothing")))
    answer = worker.hear()
    assert isinstance(answer, NotWatched)
    assert answer.errno == errno.ENOENT


def test_words_that_are_none_end_it(worker: _Worker) -> None:
    worker.end.send(b"\xc1")
    worker._thread.join(60)
    assert not worker._thread.is_alive()
