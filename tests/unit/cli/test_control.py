"""Errors and exit statuses of coworkctl as a whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from coworkd.cli import control
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest, Fault


def refuse(_: dict[str, Any]) -> Any:
    raise Fault("NOT_FOUND", "there is no session 'x'", key="session")


def test_an_error_is_one_line_with_its_code(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.get"] = refuse
    assert ctl("session", "show", "x") == 1
    assert capsys.readouterr().err == "coworkctl: there is no session 'x' [NOT_FOUND]\n"


def test_an_error_is_json_where_json_was_asked_for(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["session.get"] = refuse
    assert ctl("--json", "session", "show", "x") == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["details"]) == ("NOT_FOUND", {"key": "session"})


def test_an_interrupt_has_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "_handler", lambda _: interrupted)
    assert control.main(["ps"]) == 130


def test_output_nobody_reads_any_more_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    def speak(_: object) -> int:
        print("nobody hears this")
        return 0

    monkeypatch.setattr(control, "_handler", lambda _: speak)
    with os.fdopen(writing, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert control.main(["ps"]) == 141


def test_the_words_come_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["coworkctl", "--version"])
    with pytest.raises(SystemExit) as caught:
        control.main()
    assert caught.value.code == 0


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_closed_standard_descriptor_does_not_become_the_link(fd: int) -> None:
    program = f"""
import os
os.close({fd})
from coworkd.cli import control
def answer(args):
    link = os.open(os.devnull, os.O_RDWR)
    os._exit(0 if link > 2 and os.readlink("/proc/self/fd/{fd}") == os.devnull else 1)
control._handler = lambda _: answer
control.main(["ps"])
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0


def test_no_standard_output_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(control, "_handler", lambda _: lambda _: 0)
    assert control.main(["ps"]) == 0


def test_output_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def speak(_: object) -> int:
        print("there is no room for this")
        return 0

    monkeypatch.setattr(control, "_handler", lambda _: speak)
    with open("/dev/full", "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert control.main(["ps"]) == 1
        assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(("fd", "status", "told"), [(1, 1, b""), (2, 0, b"said\n")])
def test_words_to_a_closed_descriptor_go_nowhere_else(fd: int, status: int, told: bytes) -> None:
    program = """
import sys
from coworkd.cli import control
def answer(args):
    print("said")
    print("coworkctl: a note", file=sys.stderr)
    return 0
control._handler = lambda _: answer
sys.exit(control.main(["ps"]))
"""
    shell = f'exec "$0" -c "$1" {fd}>&-'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, program], stdout=subprocess.PIPE, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (status, told)


def test_a_terminal_that_is_gone_cannot_be_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(control, "_handler", lambda _: speak)
    with open("/dev/full", "w", buffering=1) as err, open(os.devnull, "w") as out:
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "stdout", out)
        assert control.main(["ps"]) == 1
        monkeypatch.undo()
        os.dup2(out.fileno(), err.fileno())
