from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.measure import MeasureTree, PruneTree, ReownTree, TreeFailed, TreeMeasured, TreePruned, TreeReowned
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
