from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from coworkd.system import tool_settings
from coworkd.system.tool_settings import Told, ask_program, this_machine
from tests.unit.system.settings_machine import machine, put


def test_a_program_is_asked_with_a_few_variables_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    code = "import os, sys; print(sorted(os.environ), sys.stdin.read(), os.getcwd())"
    said = ask_program((sys.executable, "-I", "-c", code), {"HOME": "/h"})
    assert said is not None
    assert "SECRET_TOKEN" not in said
    assert "'HOME'" in said
    assert said.rstrip().endswith(" /")


@pytest.mark.parametrize("argv", [("no-such-program-here",), (sys.executable, "-I", "-c", "raise SystemExit(3)")])
def test_a_program_that_is_not_there_or_fails_says_nothing(argv: tuple[str, ...]) -> None:
    assert ask_program(argv, {}) is None


def test_a_program_that_does_not_end_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_settings, "ASK_DEADLINE_S", 0.05)
    assert ask_program((sys.executable, "-I", "-c", "import signal; signal.pause()"), {}) is None


def test_files_are_read_below_the_root_and_told_without_it(tmp_path: Path) -> None:
    put(tmp_path, "/etc/d/b", "2")
    put(tmp_path, "/etc/d/a", "1")
    told = Told()
    here = machine(tmp_path)
    assert here.list("/etc/d", told) == ("/etc/d/a", "/etc/d/b")
    assert here.read("/etc/d/a", told) == "1"
    assert here.read("/etc/none", told) is None
    assert here.list("/etc/none", told) == ()
    assert told.notes == []


def test_what_cannot_be_read_is_noted(tmp_path: Path) -> None:
    put(tmp_path, "/etc/d/a", "1")
    told = Told()
    assert machine(tmp_path).read("/etc/d", told) is None
    assert told.notes == ["/etc/d cannot be read: Is a directory"]


def test_what_is_no_url_is_noted_without_its_text() -> None:
    told = Told()
    told.add("hunter2", "/etc/pip.conf")
    told.add("https://index.example/simple", "/etc/pip.conf")
    assert [url.text for url in told.urls] == ["https://index.example/simple"]
    assert "hunter2" not in told.notes[0]


def test_variables_are_chosen_by_prefix_in_either_case(tmp_path: Path) -> None:
    environ = {"npm_config_registry": "a", "NPM_CONFIG_X": "b", "SECRET": "c"}
    assert machine(tmp_path, environ=environ).variables("NPM_CONFIG_") == {
        "npm_config_registry": "a",
        "NPM_CONFIG_X": "b",
        "HOME": "/root",
    }


def test_a_home_counts_only_where_it_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert this_machine().home == str(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert this_machine().home is None
    assert this_machine().at_home(".npmrc") == ()
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    assert this_machine().home is None
