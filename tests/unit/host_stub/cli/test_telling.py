"""What is said to a person."""

from __future__ import annotations

import sys

import pytest

from host_stub.cli.telling import print_json, say, say_event, say_trouble, showing_progress
from host_stub.keeper_words import Image
from host_stub.words import MachineEvent, MachineState, Trouble


def test_a_trouble_is_a_sentence_and_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    say_trouble(Trouble("crashed", "it crashed", remedy="look", details={"serial": ["one", "\x1b[31mtwo"]}))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "    | one\n    | \\x1b[31mtwo\ncowork-vm: it crashed [crashed]\n    what to do: look\n"


def test_events_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say_event(MachineEvent(seq=1, at=0.0, kind="state", state=MachineState.READY, message="up"))
    say_event(MachineEvent(seq=2, at=0.0, kind="guest", message="memory.oom"))
    assert capsys.readouterr().err == "cowork-vm: ready: up\ncowork-vm: memory.oom\n"


def test_answers_for_programs_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(Image(name="a", version="1", architecture="x86_64"))
    assert '"version": "1"' in capsys.readouterr().out


def test_without_a_terminal_each_step_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with showing_progress() as progress:
        for done in range(3):
            progress("checking rootfs.img", done, 200 << 20)
        progress("unpacking", 1, 1 << 20)
    assert capsys.readouterr().err == "cowork-vm: checking rootfs.img (200 MiB)\ncowork-vm: unpacking (1 MiB)\n"


def test_on_a_terminal_there_are_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with showing_progress() as progress:
        progress("checking", 1, 2)
        progress("checking", 2, 2)
    assert "cowork-vm:" not in capsys.readouterr().err


def test_a_line_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\x1bc")
    assert capsys.readouterr().err == "cowork-vm: a\\nb\\x1bc\n"
