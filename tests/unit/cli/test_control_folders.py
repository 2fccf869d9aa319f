"""`coworkctl folder …` and the word for a folder."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from coworkd.cli.control_folders import parse_folder, parse_mode
from coworkd.model.errors import InvalidParams
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

FOLDER: dict[str, Any] = {
    "name": "src",
    "source": "/srv/src",
    "mode": "rw",
    "required": True,
    "state": "mounted",
    "path": "/sessions/work/mnt/src",
    "mounted_as": "guarded",
}


def test_a_folder_is_split_at_its_last_colons() -> None:
    grant = parse_folder("/a:b:name:rwd", local=True)
    assert (grant.source, grant.name, grant.mode) == ("/a:b", "name", "rwd")


def test_a_local_folder_is_made_absolute_and_one_of_a_vm_is_not() -> None:
    assert parse_folder("src:s:ro", local=True).source == os.path.join(os.getcwd(), "src")
    assert parse_folder("src:s:ro", local=False).source == "src"


@pytest.mark.parametrize("text", ["/a", "/a:b", ":b:ro", "/a::ro", "/a:b:rwx", "/a:b:optional", ":optional"])
def test_a_folder_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams, match="--folder"):
        parse_folder(text, local=True)


def test_a_folder_may_be_optional() -> None:
    assert parse_folder("/a:b:rw", local=True).required
    grant = parse_folder("/a:b:c:staged:optional", local=True)
    assert (grant.source, grant.name, grant.mode, grant.required) == ("/a:b", "c", "staged", False)


@pytest.mark.parametrize("mode", ["ro", "rw", "rwd", "staged"])
def test_every_mode_is_a_word(mode: str) -> None:
    assert parse_mode(mode, "here") == mode


def test_mount_sends_the_folder_and_says_where_it_is(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["folder.mount"] = lambda _: {"folder": {**FOLDER, "degraded": ["files keep their owner"]}}
    assert ctl("folder", "mount", "work", "/srv/src:src:rw", "--optional") == 0
    assert guest.called("folder.mount") == [
        {"session": "work", "name": "src", "source": "/srv/src", "mode": "rw", "required": False}
    ]
    assert capsys.readouterr().out.splitlines() == [
        "folder src is at /sessions/work/mnt/src, rw (guarded)",
        "  files keep their owner",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "failed", "error": "it is\x1b[31m gone"}, "folder src is not mounted: it is\\x1b[31m gone"),
        ({"state": "closed"}, "folder src is rw when session work is opened"),
    ],
)
def test_a_folder_that_is_not_mounted_says_why(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    guest.answers["folder.set_mode"] = lambda _: {"folder": {**FOLDER, **change}}
    assert ctl("folder", "mode", "work", "src", "rw") == 0
    assert guest.called("folder.set_mode") == [{"session": "work", "name": "src", "mode": "rw"}]
    assert capsys.readouterr().out == f"{said}\n"


def test_unmount_says_what_is_left(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["folder.unmount"] = lambda _: {"busy": True, "leftovers": ["bash (pid 7) is in it"]}
    assert ctl("folder", "unmount", "work", "src") == 0
    assert guest.called("folder.unmount") == [{"session": "work", "name": "src"}]
    assert capsys.readouterr().out.splitlines() == [
        "folder src is unmounted, and goes when its last user ends",
        "  bash (pid 7) is in it",
    ]


def test_list_is_a_table_with_reasons(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    gone = {**FOLDER, "name": "b", "required": False, "state": "failed", "mounted_as": None, "error": "it is not there"}
    guest.answers["folder.list"] = lambda _: {"folders": [FOLDER, gone]}
    assert ctl("folder", "list", "work") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "MODE", "STATE", "AS", "SOURCE", "WHY"]
    assert first.split() == ["src", "rw", "mounted", "guarded", "/srv/src", "-"]
    assert second.split(maxsplit=6) == ["b", "rw", "failed", "(optional)", "-", "/srv/src", "it is not there"]


@pytest.mark.parametrize(
    ("words", "method", "answer"),
    [
        (["mount", "work", "/srv/src:src:rw"], "folder.mount", {"folder": FOLDER}),
        (["mode", "work", "src", "rw"], "folder.set_mode", {"folder": FOLDER}),
        (["unmount", "work", "src"], "folder.unmount", {"busy": False, "leftovers": []}),
        (["list", "work"], "folder.list", {"folders": [FOLDER]}),
    ],
)
def test_each_verb_prints_json_where_asked(
    ctl: Ctl,
    guest: FakeGuest,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    method: str,
    answer: dict[str, Any],
) -> None:
    guest.answers[method] = lambda _: answer
    assert ctl("folder", *words, "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)
