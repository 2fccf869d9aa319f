"""`coworkctl run` and `attach` against a guest of a few lines."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest, Fault, exit_record


def plays(guest: FakeGuest, *events: Any, method: str = "process.start") -> None:
    def play(_: dict[str, Any]) -> None:
        for event in events:
            event()

    guest.after[method] = play


def test_output_is_passed_on_unaltered_and_the_status_is_the_commands(
    ctl: Ctl, guest: FakeGuest, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    record = exit_record(counts={"stdout": 3, "stderr": 1})
    record["exit"]["code"] = 42
    plays(
        guest,
        lambda: guest.output("stdout", 0, b"\x00\xff\n"),
        lambda: guest.output("stderr", 0, b"!"),
        lambda: guest.notify("process.exit", **record),
    )
    assert ctl("run", "--session", "work", "--", "x") == 42
    said = capfdbinary.readouterr()
    assert (said.out, said.err) == (b"\x00\xff\n", b"!")
    assert guest.called("process.forget") == [{"process": "p1"}]


def test_a_named_session_is_made_and_kept(ctl: Ctl, guest: FakeGuest) -> None:
    plays(guest, guest.exited)
    assert ctl("run", "--session", "work", "--folder", "/a:b:ro", "--profile", "strict", "--", "x") == 0
    assert guest.called("session.ensure") == [
        {"name": "work", "profile": "strict", "folders": [{"name": "b", "source": "/a", "mode": "ro"}]}
    ]
    assert guest.called("session.delete") == []


def test_without_a_session_a_throw_away_one_is_removed(ctl: Ctl, guest: FakeGuest) -> None:
    plays(guest, guest.exited)
    assert ctl("run", "--", "x") == 0
    (ensured,) = guest.called("session.ensure")
    assert (ensured["ephemeral"], ensured["resume"]) == (True, "new")
    assert guest.called("session.delete") == [{"session": ensured["name"], "force": True}]
    assert guest.called("process.start")[0]["session"] == ensured["name"]


def test_everything_asked_for_reaches_the_guest(ctl: Ctl, guest: FakeGuest) -> None:
    plays(guest, guest.exited)
    assert ctl("run", "--session", "w", "-e", "A=1", "--cwd", "/x", "--timeout", "2", "--", "a", "--b") == 0
    assert guest.called("process.start") == [
        {
            "session": "w",
            "argv": ["a", "--b"],
            "env": {"A": "1"},
            "cwd": "/x",
            "timeout_s": 2.0,
            "on_full": "block",
        }
    ]


@pytest.mark.parametrize(("stage", "status"), [("not_found", 127), ("not_executable", 126), ("bad_cwd", 125)])
def test_a_command_that_cannot_be_started_has_its_status_and_its_message(
    stage: str, status: int, ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Fault("FAILED_PRECONDITION", "why it did not start", stage=stage)

    guest.answers["process.start"] = refuse
    assert ctl("run", "--", "x") == status
    assert capsys.readouterr().err == f"coworkctl: why it did not start [FAILED_PRECONDITION, {stage}]\n"
    assert len(guest.called("session.delete")) == 1


def test_a_lost_link_is_a_failure_of_ours(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    plays(guest, guest.hang_up)
    assert ctl("run", "--", "x") == 125
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_stdin_is_passed_on_and_closed(ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"input")
    os.close(writing)
    monkeypatch.setattr("coworkd.cli.control_run.STDIN", reading)
    guest.answers["process.write_stdin"] = lambda params: {"offset": params["offset"] + len(params["data"])}
    guest.answers["process.close_stdin"] = lambda _: {}
    plays(guest, guest.exited, method="process.close_stdin")
    assert ctl("run", "--session", "w", "-i", "--", "cat") == 0
    os.close(reading)
    assert guest.called("process.start")[0]["stdin"] == "pipe"
    assert [params["data"] for params in guest.called("process.write_stdin")] == [b"input"]
    assert guest.called("process.close_stdin") == [{"process": "p1", "offset": 5}]


def test_a_signal_ends_the_command_and_is_our_status(ctl: Ctl, guest: FakeGuest) -> None:
    plays(guest, lambda: os.kill(os.getpid(), signal.SIGTERM))
    plays_exit = {"process.kill": lambda _: guest.exited("truncated")}
    guest.after.update(plays_exit)
    assert ctl("run", "--session", "w", "--", "sleep") == 128 + signal.SIGTERM
    assert guest.called("process.kill") == [{"process": "p1"}]


def test_a_reader_that_is_gone_ends_the_command(ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setitem(__import__("coworkd.cli.control_run", fromlist=["FDS"]).FDS, "stdout", writing)
    plays(guest, lambda: guest.output("stdout", 0, b"x"))
    with pytest.raises(SystemExit) as caught:
        ctl("run", "--session", "w", "--", "yes")
    os.close(writing)
    assert caught.value.code == 141
    assert guest.called("process.kill") == [{"process": "p1", "grace_s": 0}]


def test_a_tty_has_a_size_and_one_stream(ctl: Ctl, guest: FakeGuest, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    plays(guest, lambda: guest.output("tty", 0, b"/dev/pts/0\r\n"), lambda: guest.exited(tty=12))
    assert ctl("run", "--session", "w", "-t", "--", "tty") == 0
    start = guest.called("process.start")[0]
    assert set(start["tty"]) == {"rows", "cols"}
    assert "stdin" not in start
    assert capfdbinary.readouterr().out == b"/dev/pts/0\r\n"


def test_shell_asks_for_a_terminal(ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    monkeypatch.setattr("coworkd.cli.control_run.STDIN", reading)
    plays(guest, guest.exited)
    assert ctl("shell", "work") == 0
    os.close(reading)
    assert guest.called("process.start")[0]["tty"] == {"rows": 24, "cols": 80}


@pytest.fixture
def attached(guest: FakeGuest) -> FakeGuest:
    guest.answers["process.get"] = lambda _: {
        "process": "p1",
        "session": "work",
        "argv": ["x"],
        "state": "running",
        "pid": 7,
        "started_at": 1.0,
        "streams": {},
    }
    guest.answers["process.attach"] = lambda _: {"streams": {"stdout": {"first": 2, "end": 4}}}
    return guest


def test_attach_shows_what_is_kept_and_takes_over_the_status(
    ctl: Ctl, attached: FakeGuest, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    plays(
        attached,
        lambda: attached.output("stdout", 2, b"ab"),
        lambda: attached.exited(stdout=4),
        method="process.attach",
    )
    assert ctl("attach", "p1") == 0
    assert capfdbinary.readouterr().out == b"ab"
    assert attached.called("process.forget") == []


def test_an_interrupted_attach_leaves_the_command_running(ctl: Ctl, attached: FakeGuest) -> None:
    plays(attached, lambda: os.kill(os.getpid(), signal.SIGINT), method="process.attach")
    assert ctl("attach", "p1") == 130
    assert attached.called("process.kill") == attached.called("process.signal") == []
