"""`up`, `down`, `restart`, `status` from the command line, over keepers that are real and a machine that is a process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from host_stub.bundle import Bundle
from host_stub.cli.main import main
from host_stub.keeper_words import Status
from host_stub.words import MachineState
from tests.unit.host_stub.conftest import end_keeper, keeper_pid

Start = Callable[[Bundle], int]


def test_up_joins_what_runs_and_down_ends_it(bundle: Bundle, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--bundle", str(bundle.path)]
    start(bundle)
    assert main(["up", *place, "--no-wait"]) == 0
    assert "runs already" in capsys.readouterr().err
    assert main(["up", *place, "--wait", "0"]) == 1  # this guest never answers: it is waited for no longer, and runs on
    assert "[not_ready]" in capsys.readouterr().err
    assert main(["status", *place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keeper_pid"] == keeper_pid(bundle)
    assert main(["down", *place]) == 0
    assert "the machine has stopped" in capsys.readouterr().err
    assert main(["status", *place]) == 3
    assert "the machine has stopped" in capsys.readouterr().out


def test_what_does_not_run_is_said(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--bundle", str(bundle.path)]
    assert main(["status", *place]) == 3
    assert "it was never started" in capsys.readouterr().out
    assert main(["down", *place]) == 0
    assert main(["restart", *place]) == 1
    assert "[not_running]" in capsys.readouterr().err


def test_a_killed_keeper_is_said(bundle: Bundle, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start(bundle)
    os.kill(keeper_pid(bundle), signal.SIGKILL)
    end_keeper(bundle)
    assert main(["status", "--bundle", str(bundle.path)]) == 3
    assert "the keeper was killed while the machine was starting" in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False])
def test_a_session_disk_is_made_only_where_one_is_gone(
    bundle: Bundle, start: Start, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if not there:
        bundle.session_disk.unlink()
        assert main(["up", "--bundle", str(bundle.path), "--no-wait"]) == 1
        assert "[no_session_disk]" in capsys.readouterr().err
    words = ["up", "--bundle", str(bundle.path), "--no-wait", "--new-session-disk", "--disk", "64M"]
    assert main(words) == (1 if there else 0)
    if there:
        assert "[session_disk_there]" in capsys.readouterr().err
    else:
        assert main(["down", "--bundle", str(bundle.path), "--kill"]) == 0
        end_keeper(bundle)


def test_what_a_guest_calls_its_parts_cannot_drive_the_terminal(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;x\x07\u202e\n"
    told = Status(bundle=evil, state=MachineState.DEGRADED, message=evil, version=evil, degraded={evil: evil})
    monkeypatch.setattr("host_stub.cli.machines.current_status", lambda _: told)
    main(["status", "--bundle", str(bundle.path)])
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if not line.isprintable()] == []
    assert "without \\x1b]0;x" in shown


def test_who_leaves_while_it_starts_is_told_that_it_goes_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("host_stub.cli.machines.start_keeper", interrupted)
    assert main(["up", "--bundle", str(bundle.path)]) == 130
    assert "cowork-vm down" in capsys.readouterr().err
