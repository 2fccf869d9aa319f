"""The tables and verdicts of sessions on the disk, folders and files."""

from __future__ import annotations

import pytest
from msgspec import structs

from tests.bench.crowded import Crowded
from tests.bench.files import QUICK_FILES, FilesFigures
from tests.bench.folders import BINDFS, PLAIN, QUICK_FOLDERS, Course, FolderFigures
from tests.bench.folders_start import FolderStarts
from tests.bench.sessions import SessionFigures
from tests.bench.spawning import Pairs
from tests.bench.staged import COMMIT, COPY, DURABLE, LIST, PREPARE, QUICK_STAGED, StagedFigures
from tests.bench.storage import StorageFigures
from tests.bench.storage_report import compose_storage_sections, judge_storage

_STARTS = {"no folder": [0.010], "one ro": [0.0105], "one rwd": [0.0104], "one rw": [0.012], "four": [0.011]}
GOOD_STORAGE = StorageFigures(
    sessions=SessionFigures(
        crowd=2000, new=[0.1], existing=[0.01], recovery=1.0, lists=[0.1], run_alone=[0.01], run_crowded=[0.01]
    ),
    crowded=Crowded(sessions=2000, alone_s=[0.01], crowded_s=[0.01], open_s=0.01),
    starts=FolderStarts(runs=_STARTS, mounts={"ro": [0.01]}, unmounts={"ro": [0.005]}),
    folders=FolderFigures(
        effort=QUICK_FOLDERS,
        courses=(Course(name="git status", script=":"),),
        seconds={"git status": {PLAIN: [0.1], "coworkd, rw": [0.3]}},
        absent={BINDFS: "not installed: bindfs"},
    ),
    staged=StagedFigures(
        effort=QUICK_STAGED,
        seconds={"new files": {PREPARE: [0.1], LIST: [0.1], COMMIT: [5.0], COPY: [1.0], DURABLE: [4.0]}},
    ),
    files=FilesFigures(
        effort=QUICK_FILES,
        upload=Pairs(base_s=[1.0], other_s=[1.0]),
        download=Pairs(base_s=[1.0], other_s=[1.0]),
        tree_up_s=[1.0],
        tree_down_s=[1.0],
    ),
)
_SESSIONS = GOOD_STORAGE.sessions


def test_judge_finds_all_targets_met() -> None:
    assert [verdict.met for verdict in judge_storage(GOOD_STORAGE)] == [True] * 8


@pytest.mark.parametrize(
    ("position", "bad"),
    [
        (0, structs.replace(GOOD_STORAGE, sessions=structs.replace(_SESSIONS, new=[0.26]))),
        (1, structs.replace(GOOD_STORAGE, sessions=structs.replace(_SESSIONS, existing=[0.031]))),
        (2, structs.replace(GOOD_STORAGE, sessions=structs.replace(_SESSIONS, lists=[0.21]))),
        (3, structs.replace(GOOD_STORAGE, sessions=structs.replace(_SESSIONS, recovery=3.1))),
        (4, structs.replace(GOOD_STORAGE, crowded=structs.replace(GOOD_STORAGE.crowded, crowded_s=[0.012]))),
        (
            5,
            structs.replace(
                GOOD_STORAGE, starts=structs.replace(GOOD_STORAGE.starts, runs={**_STARTS, "one ro": [0.0111]})
            ),
        ),
    ],
)
def test_judge_finds_the_target_that_is_missed(position: int, bad: StorageFigures) -> None:
    assert [number for number, verdict in enumerate(judge_storage(bad)) if not verdict.met] == [position]


def test_sections_are_tables_whose_rows_are_as_long_as_their_heads() -> None:
    for section in compose_storage_sections(GOOD_STORAGE):
        lines = [line for line in section.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, section


def test_what_is_not_installed_is_told() -> None:
    assert "not installed: bindfs" in "\n".join(compose_storage_sections(GOOD_STORAGE))
