from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from coworkd.model.measure import (
    MeasureAnswer,
    MeasureTree,
    PruneTree,
    ReownTree,
    TreeFailed,
    TreeMeasured,
    TreePruned,
    TreeReowned,
)
from coworkd.workers import measure
from tests.unit.workers.trees import write


def test_each_request_has_its_answer(tmp_path: Path) -> None:
    write(tmp_path / "home/file")
    root = os.fsencode(tmp_path)
    told = measure.answer(MeasureTree(id=1, root=root, path=b"home", deadline_s=9))
    assert isinstance(told, TreeMeasured)
    assert (told.id, told.files) == (1, 1)
    pruned = measure.answer(PruneTree(id=2, root=root, path=b".", places=(b"home",), deadline_s=9))
    assert isinstance(pruned, TreePruned)
    assert (pruned.id, pruned.files) == (2, 1)
    owned = measure.answer(ReownTree(id=3, root=root, path=b"home", uid_from=59_999, uid_to=59_998))
    assert owned == TreeReowned(id=3, changed=0)


def test_what_a_disk_refuses_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: MeasureTree) -> TreeMeasured:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(measure, "measure", fail)
    told = measure.answer(MeasureTree(id=4, root=b"/", path=b"x", deadline_s=9))
    assert told == TreeFailed(id=4, errno=5, message="Input/output error")


def test_it_answers_in_order_and_ends_with_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "yield_to_others", lambda: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root = os.fsencode(tmp_path)
    with ours, theirs:
        for number in (1, 2):
            ours.send(msgspec.msgpack.encode(MeasureTree(id=number, root=root, path=b"none", deadline_s=9)))
        ours.send(b"no words of ours")
        measure.serve(theirs)
        decoder = msgspec.msgpack.Decoder(MeasureAnswer)
        assert [decoder.decode(ours.recv(65536)).id for _ in range(2)] == [1, 2]


def test_it_ends_when_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "yield_to_others", lambda: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.send(msgspec.msgpack.encode(MeasureTree(id=1, root=b"/", path=b"none", deadline_s=9)))
        ours.close()
        measure.serve(theirs)
