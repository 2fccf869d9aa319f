"""`coworkctl run` and `attach` against a guest of a few lines."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from coworkd.cli import control_follow
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest, Fault, exit_record


def plays(guest: FakeGuest, *events: Any, method: str = "process.start") -> None:
    def play(_: dict[str, Any]) -> None:
        for event in events:
            event()

    guest.after[method] = play


def asked(guest: FakeGuest, method: str) -> list[dict[str, Any]]:
    """The calls, without what the client says to be able to make them again on another link."""
    return [
        {name: value for name, value in params.items() if name not in ("request_id", "id", "acknowledge")}
        for params in guest.called(method)
    ]


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
    assert asked(guest, "process.forget") == [{"process": "p1"}]


def test_a_named_session_is_made_and_kept(ctl: Ctl, guest: FakeGuest) -> None:
    plays(guest, guest.exited)
    assert ctl("run", "--session", "work", "--folder", "/a:b:ro", "--profile", "strict", "--", "x") == 0
    assert asked(guest, "session.ensure") == [
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
    assert asked(guest, "process.start") == [
        {
            "session": "w",
            "argv": ["a", "--b"],
            "env": {"A": "1"},
            "cwd": "/x",
            "timeout_s": 2.0,
            "on_full": "block",
        }
    ]


@pytest.mark.parametrize(
    ("words", "spool", "on_full"),
    [
        ([], None, "block"),
        (["--spool-limit", "20M"], {"limit_bytes": 20 * 1024 * 1024}, "block"),
        (["--spool-where", "disk"], {"where": "disk"}, "block"),
        (["--spool-limit", "65536", "--spool-where", "memory"], {"limit_bytes": 65536}, "block"),
        (["--spool-full", "drop-oldest"], None, "drop_oldest"),
        (["--spool-full", "block"], None, "block"),
    ],
)
def test_what_is_kept_of_the_output_is_asked_for(
    words: list[str], spool: dict[str, Any] | None, on_full: str, ctl: Ctl, guest: FakeGuest
) -> None:
    plays(guest, guest.exited)
    assert ctl("run", "--session", "w", *words, "--", "a") == 0
    (started,) = asked(guest, "process.start")
    assert (started.get("spool"), started["on_full"]) == (spool, on_full)


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
    stdin_is(monkeypatch, reading)
    guest.answers["process.write_stdin"] = lambda params: {"offset": params["offset"] + len(params["data"])}
    guest.answers["process.close_stdin"] = lambda _: {}
    plays(guest, guest.exited, method="process.close_stdin")
    assert ctl("run", "--session", "w", "-i", "--", "cat") == 0
    os.close(reading)
    assert guest.called("process.start")[0]["stdin"] == "pipe"
    assert [params["data"] for params in guest.called("process.write_stdin")] == [b"input"]
    assert asked(guest, "process.close_stdin") == [{"process": "p1", "offset": 5}]


def stdin_is(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    for module in ("control_run", "control_follow"):
        monkeypatch.setattr(f"coworkd.cli.{module}.STDIN", fd)


def test_a_signal_ends_the_command_and_is_our_status(ctl: Ctl, guest: FakeGuest) -> None:
    plays(guest, lambda: os.kill(os.getpid(), signal.SIGTERM))
    plays_exit = {"process.kill": lambda _: guest.exited("truncated")}
    guest.after.update(plays_exit)
    assert ctl("run", "--session", "w", "--", "sleep") == 128 + signal.SIGTERM
    assert asked(guest, "process.kill") == [{"process": "p1"}]


def test_a_reader_that_is_gone_ends_the_command(ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setitem(control_follow.FDS, "stdout", writing)
    plays(guest, lambda: guest.output("stdout", 0, b"x"))
    assert ctl("run", "--session", "w", "--", "yes") == 141
    os.close(writing)
    assert asked(guest, "process.kill") == [{"process": "p1", "grace_s": 0}]


def test_a_tty_has_a_size_and_one_stream(ctl: Ctl, guest: FakeGuest, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    plays(guest, lambda: guest.output("tty", 0, b"/dev/pts/0\r\n"), lambda: guest.exited(tty=12))
    assert ctl("run", "--session", "w", "-t", "--", "tty") == 0
    start = guest.called("process.start")[0]
    assert set(start["tty"]) == {"rows", "cols"}
    assert "stdin" not in start
    assert capfdbinary.readouterr().out == b"/dev/pts/0\r\n"


def test_a_shell_without_a_terminal_of_ours_reads_what_to_do(
    ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    stdin_is(monkeypatch, reading)
    guest.answers["process.close_stdin"] = lambda _: {}
    plays(guest, guest.exited, method="process.close_stdin")
    assert ctl("shell", "work") == 0
    os.close(reading)
    started = guest.called("process.start")[0]
    assert started["stdin"] == "pipe"
    assert "tty" not in started


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The master of the terminal that our standard input is."""
    master, slave = os.openpty()
    stdin_is(monkeypatch, slave)
    yield master
    os.close(master)
    os.close(slave)


def type_when_raw(master: int, keys: bytes) -> None:
    """Before that the kernel would take Ctrl-C for itself."""
    while termios.tcgetattr(master)[3] & termios.ICANON:
        os.sched_yield()
    os.write(master, keys)


def test_a_shell_at_a_terminal_has_one_of_its_kind(
    ctl: Ctl, guest: FakeGuest, keyboard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plays(guest, guest.exited)
    assert ctl("shell", "work", "-e", "COLORTERM=mine") == 0
    started = guest.called("process.start")[0]
    assert started["tty"] == {"rows": 24, "cols": 80}
    assert started["env"] == {"TERM": "xterm-256color", "COLORTERM": "mine"}
    assert "on_full" not in started


def test_keys_are_typed_and_those_that_detach_leave_the_command(
    ctl: Ctl, guest: FakeGuest, keyboard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def take(params: dict[str, Any]) -> dict[str, Any]:
        guest.after["process.write_stdin"] = lambda _: type_when_raw(keyboard, b"\x10\x11")
        return {"offset": 0, "taken": len(params["data"])}

    guest.answers["process.write_stdin"] = take
    plays(guest, lambda: type_when_raw(keyboard, b"ls\x03"))
    assert ctl("shell", "work") == 0
    assert asked(guest, "process.write_stdin") == [{"process": "p1", "data": b"ls\x03"}]
    assert guest.called("process.kill") == guest.called("process.forget") == []
    said = capsys.readouterr().err
    assert "left p1; it runs on: coworkctl --to unix:///fake attach p1" in said
    assert "typed" not in said


def test_what_a_command_has_not_taken_when_it_is_left_is_told(
    ctl: Ctl, guest: FakeGuest, keyboard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def take_nothing(params: dict[str, Any]) -> dict[str, Any]:
        guest.after["process.write_stdin"] = lambda _: type_when_raw(keyboard, b"\x10\x11")
        return {"offset": 0, "taken": 0}

    guest.answers["process.write_stdin"] = take_nothing
    plays(guest, lambda: type_when_raw(keyboard, b"ls"))
    assert ctl("shell", "work") == 0
    assert "p1 has not said that it took what was typed last" in capsys.readouterr().err


def test_a_throw_away_session_cannot_be_left_by_keys(ctl: Ctl, guest: FakeGuest, keyboard: int) -> None:
    typed = bytearray()

    def take(params: dict[str, Any]) -> dict[str, Any]:
        typed.extend(params["data"])
        if len(typed) == 3:
            guest.after["process.write_stdin"] = lambda _: guest.exited()
        return {"offset": 0, "taken": len(params["data"])}

    guest.answers["process.write_stdin"] = take
    plays(guest, lambda: type_when_raw(keyboard, b"\x10\x11!"))
    assert ctl("shell") == 0
    assert typed == b"\x10\x11!"


def test_detach_keys_that_are_none_are_refused_before_anything_is_made(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("run", "--session", "w", "--detach-keys", "ctrl-ü", "--", "x") == 125
    assert "is no key" in capsys.readouterr().err
    assert guest.called("session.ensure") == []


@pytest.fixture
def attached(guest: FakeGuest) -> FakeGuest:
    guest.answers["process.get"] = lambda _: {
        "process": "p1",
        "session": "work",
        "argv": ["x"],
        "state": "running",
        "pid": 7,
        "started_at": 1.0,
        "streams": {"stdout": [2, 4]},
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


def test_an_attach_shows_only_what_comes_where_that_is_asked(ctl: Ctl, attached: FakeGuest) -> None:
    plays(attached, lambda: attached.exited(stdout=4), method="process.attach")
    assert ctl("attach", "--replay", "none", "p1") == 0
    assert asked(attached, "process.attach") == [{"process": "p1", "stdout": 4}]


def test_a_screenful_of_what_has_no_terminal_is_refused(
    ctl: Ctl, attached: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("attach", "--replay", "screen", "p1") == 125
    assert "has no terminal" in capsys.readouterr().err


def test_an_attach_whose_reader_is_gone_leaves_the_command(
    ctl: Ctl, attached: FakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setitem(control_follow.FDS, "stdout", writing)
    plays(attached, lambda: attached.output("stdout", 2, b"ab"), method="process.attach")
    assert ctl("attach", "p1") == 141
    os.close(writing)
    assert attached.called("process.kill") == []


def test_an_attach_to_a_terminal_makes_its_program_draw_anew(
    ctl: Ctl, attached: FakeGuest, keyboard: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    get = attached.answers["process.get"]
    attached.answers["process.get"] = lambda params: {**get(params), "streams": {"tty": [0, 6]}}
    attached.answers["process.attach"] = lambda _: {"streams": {"tty": {"first": 0, "end": 6}}}
    attached.answers["process.resize"] = lambda _: {}

    def resized(params: dict[str, Any]) -> None:
        if params["rows"] == 24:
            attached.output("tty", 0, b"a\r\nb\r\n")
            attached.exited(tty=6)

    attached.after["process.resize"] = resized
    assert ctl("attach", "p1") == 0
    assert [(params["rows"], params["cols"]) for params in attached.called("process.resize")] == [(23, 80), (24, 80)]
    assert capfdbinary.readouterr().out == b"a\r\nb\r\n"
