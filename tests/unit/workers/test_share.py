"""The share worker without a kernel: what is asked of it, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coworkd.model.share import MountShare, ShareAbsent, ShareMounted
from coworkd.system.mountinfo import MountEntry
from coworkd.workers import share


def ask(place: Path) -> MountShare:
    return MountShare(id=1, kinds=("virtiofs", "9p"), tag="claudeshared", mount_point=bytes(place))


def entry(place: Path, kind: str) -> MountEntry:
    return MountEntry(
        mount_id=1, device=0, root=b"/", mount_point=bytes(place), options=(), kind=kind, source=b"t", super_options=()
    )


def test_the_next_kind_is_tried_where_one_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def mount(kind: Any, tag: str, mount_point: bytes) -> None:
        tried.append(kind)
        if kind == "virtiofs":
            raise OSError(22, "tag <claudeshared> not found")

    monkeypatch.setattr(share, "mount", mount)
    assert share.answer(ask(tmp_path / "root")) == ShareMounted(id=1, kind="9p", already=False)
    assert tried == ["virtiofs", "9p"]
    assert (tmp_path / "root").is_dir()


def test_where_none_can_the_kernels_words_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mount(kind: Any, tag: str, mount_point: bytes) -> None:
        raise OSError(19, f"no {kind} here")

    monkeypatch.setattr(share, "mount", mount)
    answer = share.answer(ask(tmp_path))
    assert isinstance(answer, ShareAbsent)
    assert "virtiofs: no virtiofs here; 9p: no 9p here" in answer.reason


def test_one_that_is_mounted_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "read_mounts", lambda: [entry(tmp_path, "9p")])
    assert share.answer(ask(tmp_path)) == ShareMounted(id=1, kind="9p", already=True)


def test_something_else_that_is_mounted_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "read_mounts", lambda: [entry(tmp_path, "tmpfs")])
    answer = share.answer(ask(tmp_path))
    assert isinstance(answer, ShareAbsent)
    assert "tmpfs" in answer.reason
