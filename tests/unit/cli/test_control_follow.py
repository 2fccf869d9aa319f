"""Following a command against a client and a process of a few lines."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from coworkd.cli import control_follow
from coworkd.cli.control_follow import Follower, KeySink, Manner, OutputClosed
from coworkd.cli.control_signals import Signals
from coworkd.client import Client, Output, Process
from coworkd.client.repeating import compose_refusal
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.process import Exit, ExitRecord

Step = Callable[[], Output | None]


class Link:
    """What a follower needs of a client."""

    def __init__(self) -> None:
        self.broken: CoworkError | None = None
        self.asked: list[str] = []
        self.link_changed: Callable[[CoworkError | None], None] = lambda error: None

    def call(self, method: str, params: dict[str, Any], *, timeout_s: float) -> None:
        self.asked.append(method)

    def close(self) -> None:
        self.broken = Unavailable("this client was closed")


class Command:
    """What a follower needs of a process: `steps` are what `read` does, one after the other."""

    id = "p1"

    def __init__(self, *steps: Step, reason: Any = "exited") -> None:
        self._steps = list(steps)
        self._reason = reason
        self.sizes: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def read(self) -> Output | None:
        return self._steps.pop(0)() if self._steps else None

    def wait(self) -> ExitRecord:
        return ExitRecord(
            process="p1",
            session="s",
            exit=Exit(code=0, signal=None, reason=self._reason),
            output="complete",
            bytes={},
            rusage=None,
            started_at=0.0,
            ended_at=1.0,
        )

    def resize(self, rows: int, cols: int) -> None:
        self.sizes.put((rows, cols))


def says(data: bytes, stream: Any = "tty") -> Step:
    return lambda: Output(stream, 0, data, False)


def fails() -> Output | None:
    raise Unavailable("the link broke")


def follower(
    command: Command, link: Link | None = None, *, manner: Manner | None = None, signals: Signals | None = None
) -> Follower:
    link = link or Link()
    signals = signals or Signals(size=lambda: (24, 80), give_up=link.close)
    return Follower(
        cast(Client, link), cast(Process, command), signals, manner or Manner(tty=True, stdin=False, keys=b"\x10\x11")
    )


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The master of a terminal that is all our descriptors."""
    master, slave = os.openpty()
    for name in ("STDIN", "STDOUT", "STDERR"):
        monkeypatch.setattr(control_follow, name, slave)
    monkeypatch.setitem(control_follow.FDS, "tty", slave)
    yield master
    os.close(master)
    os.close(slave)


def shown(master: int) -> bytes:
    """All that was written; what the kernel still carries from one side to the other is waited for."""
    mark = b"<end of test>"
    os.write(control_follow.STDOUT, mark)
    data = b""
    while not data.endswith(mark):
        data += os.read(master, 65536)
    return data.removesuffix(mark)


def test_what_a_command_made_of_the_terminal_is_undone_behind_its_last_byte(screen: int) -> None:
    record = follower(Command(says(b"\x1b[?1049h\x1b[?25l"), says(b"x"))).run()
    assert record is not None
    assert shown(screen) == b"\x1b[?1049h\x1b[?25lx\x1b[?25h\x1b[?1049l"


def test_it_is_undone_when_the_link_breaks_and_what_is_said_then_has_a_line_of_its_own(screen: int) -> None:
    link = Link()

    def breaks() -> Output | None:
        link.close()
        return fails()

    broken = follower(Command(says(b"\x1b[?25l$ "), breaks), link)
    with pytest.raises(Unavailable):
        broken.run()
    assert broken.lost
    assert shown(screen) == b"\x1b[?25l$ \x1b[?25h\r\n"


def test_an_error_over_a_link_that_stands_is_not_a_lost_link(screen: int) -> None:
    failed = follower(Command(fails))
    with pytest.raises(Unavailable):
        failed.run()
    assert not failed.lost


@pytest.mark.parametrize(("reason", "kept"), [("exited", b"typed"), ("killed", b"")])
def test_keys_typed_ahead_are_the_shells_only_after_an_end_of_the_commands_own(
    screen: int, reason: str, kept: bytes
) -> None:
    def type_on() -> Output | None:
        os.write(screen, b"typed\n")
        return None

    slave = control_follow.STDIN
    # The reader of the keyboard would take them: what counts is what it leaves.
    ahead = follower(Command(type_on, reason=reason))
    ahead._make_pump = lambda: None  # type: ignore[method-assign]
    ahead.run()
    os.set_blocking(slave, False)
    try:
        left = os.read(slave, 100)
    except BlockingIOError:
        left = b""
    assert left.strip() == kept


def test_a_command_that_is_left_has_no_record(screen: int) -> None:
    def leave() -> Output | None:
        left.leave()
        return fails()

    link = Link()
    left = follower(Command(leave), link)
    assert left.run() is None
    assert left.left
    assert link.asked == ["process.detach"]


def test_a_reader_that_is_gone_is_told_apart_from_errors_of_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setitem(control_follow.FDS, "stdout", writing)
    with pytest.raises(OutputClosed) as caught:
        follower(Command(says(b"x", "stdout")), manner=Manner(tty=False, stdin=False)).run()
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    os.close(writing)


def test_a_link_that_is_lost_and_found_is_told_and_the_screen_drawn_anew(screen: int) -> None:
    link = Link()
    signals = Signals(size=lambda: (24, 80), give_up=link.close)

    def lose_and_find() -> Output | None:
        link.link_changed(Unavailable("gone"))
        link.link_changed(None)
        return None

    command = Command(says(b"$ "), lose_and_find)
    follower(command, link, signals=signals).run()
    assert shown(screen) == (
        b"$ \r\ncoworkctl: the link is lost; looking for coworkd for 30 s, Ctrl-C gives up\r\n"
        b"coworkctl: the link is there again\r\n"
    )
    assert [command.sizes.get(timeout=5) for _ in range(2)] == [(23, 80), (24, 80)]


def test_keys_that_were_on_their_way_over_a_restart_are_not_typed_twice_and_told() -> None:
    class Restarted(Command):
        def append_some(self, data: bytes) -> int:
            raise compose_refusal("process.write_stdin")

    class Lost(Command):
        def append_some(self, data: bytes) -> int:
            raise Unavailable("the link broke")

    said: list[str] = []
    assert KeySink(cast(Process, Restarted()), said.append).write_some(b"ls") == 2
    assert said == ["coworkd was restarted: what was typed last may not have arrived"]
    with pytest.raises(Unavailable):
        KeySink(cast(Process, Lost()), said.append).write_some(b"ls")


def test_ctrl_c_gives_a_lost_link_up_and_is_a_key_like_others_before(screen: int) -> None:
    link = Link()
    lost = follower(Command(), link)
    lost._typed(b"\x03")
    assert link.broken is None
    lost._link_changed(Unavailable("gone"))
    lost._typed(b"x")
    assert link.broken is None
    lost._typed(b"ls\x03")
    assert link.broken is None
    lost._typed(b"\x03")
    assert link.broken is not None
    lost._process = cast(Process, Command(fails))
    with pytest.raises(Unavailable, match="not looked for any longer"):
        lost.run()
