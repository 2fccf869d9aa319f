"""What /proc tells, of this very process."""

from __future__ import annotations

import os
from typing import Any

import pytest

from coworkd.services import report_proc
from coworkd.services.report_part import collect
from coworkd.services.report_proc import NUMBERS, parts_of_proc
from coworkd.services.report_redact import Redactor
from coworkd.services.report_words import Words
from coworkd.system.mountinfo import parse_mounts


def taken(pids: dict[str, int], *names: str) -> dict[str, Any]:
    redactor = Redactor(Words({"python"}))
    return {part.file: collect(part, redactor) for part in parts_of_proc(pids) if part.file in names}


def test_where_a_program_stands() -> None:
    ((told, why),) = taken({"coworkd": os.getpid()}, "process-coworkd.json").values()
    assert why is None
    assert told["pid"] == os.getpid()
    assert told["status"]["VmRSS"].endswith(" kB")
    assert told["fds"] > 2
    assert len(told["threads"]) >= 1


def test_a_program_that_has_gone_is_missing() -> None:
    assert taken({"launcher": 2**22 + 1}, "process-launcher.json") == {
        "process-launcher.json": (None, "[removed] [removed] [removed] [removed] [removed]")
    }


def test_mounts_tell_their_kind_and_not_whose_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        b"20 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw,discard,resuid=1000",
        b"21 20 0:4 / /proc rw,nosuid - proc proc rw",
        rb"22 20 0:44 / /home/alice/my\040secrets rw - virtiofs alice-share rw,secret=hunter2,size=4k",
        b"23 20 0:45 / /mnt/nas rw - cifs //nas/alice rw,username=alice,password=hunter2",
    ]
    monkeypatch.setattr(report_proc, "read_mounts", lambda path: parse_mounts(lines))
    ((told, why),) = taken({}, "mounts.json").values()
    assert why is None
    assert told[:2] == [
        {
            "kind": "ext4",
            "at": "/",
            "source": "/dev/vda1",
            "options": ["rw", "relatime", "rw", "discard", "resuid=1000"],
        },
        {"kind": "proc", "at": "/proc", "source": "[removed]", "options": ["rw", "nosuid", "rw"]},
    ]
    assert (told[2]["kind"], told[2]["options"]) == ("virtiofs", ["rw", "rw", "[removed]", "size=4k"])
    for secret in ("alice", "hunter2", "secrets", "nas"):
        assert secret not in str(told)


def test_without_a_launcher_there_are_no_cgroups_of_ours() -> None:
    assert taken({}, "cgroups.json")["cgroups.json"][0] is None


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("max\n", True),
        ("low 0\nhigh 3\nmax 0\noom 1\noom_kill 1\n", True),
        ("some avg10=0.00 avg60=0.12 avg300=0.00 total=7\n", True),
        ("/usr/bin/x\n", False),
        ("Hunter2", False),
    ],
)
def test_values_of_cgroups_are_names_of_the_kernels_and_numbers(text: str, passes: bool) -> None:
    assert bool(NUMBERS.match(text)) is passes
