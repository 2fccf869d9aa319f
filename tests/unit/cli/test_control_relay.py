"""Bytes between a command and descriptors."""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coworkd.cli import control_relay
from coworkd.cli.control_relay import QUEUED_BYTES, STDIN_BYTES, AtEnd, Sink, StdinPump, relay_output, write_whole
from coworkd.client import Output
from coworkd.model.errors import CoworkError, InvalidState, OutOfRange, Unavailable


class SlowSink:
    """Takes at most `take` bytes a call, nothing in every second one."""

    def __init__(self, take: int = 10**9, error: CoworkError | None = None) -> None:
        self.taken = b""
        self.closed = 0
        self._take = take
        self._error = error
        self._turn = 0

    def write_some(self, data: bytes, /) -> int:
        if self._error is not None:
            raise self._error
        self._turn += 1
        piece = b"" if self._turn % 2 == 0 else data[: self._take]
        self.taken += piece
        return len(piece)

    def close_stdin(self) -> None:
        self.closed += 1


class Source:
    def __init__(self, *items: Output | OutOfRange) -> None:
        self._items = list(items)

    def read(self) -> Output | None:
        if not self._items:
            return None
        item = self._items.pop(0)
        if isinstance(item, OutOfRange):
            raise item
        return item


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = list(os.pipe())
    yield ends[0], ends[1]
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def to(fds: dict[str, int]) -> Callable[[Output], None]:
    return lambda piece: write_whole(fds[piece.stream], piece.data)


def pumped(data: bytes, sink: Sink, **options: Any) -> StdinPump:
    """What a pump does with `data` and the end behind it."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    pump = StdinPump(sink, reading, **options)
    pump.read_all()
    pump.offer_all()
    pump.stop()
    os.close(reading)
    return pump


def test_all_of_stdin_is_offered_until_it_was_taken_and_then_closed() -> None:
    sink = SlowSink(take=3)
    pumped(b"0123456789", sink)
    assert sink.taken == b"0123456789"
    assert sink.closed == 1


def test_an_empty_stdin_is_closed_at_once() -> None:
    sink = SlowSink()
    pumped(b"", sink)
    assert (sink.taken, sink.closed) == (b"", 1)


def test_stdin_can_be_left_open() -> None:
    sink = SlowSink()
    pumped(b"x", sink, at_end=AtEnd.NOTHING)
    assert (sink.taken, sink.closed) == (b"x", 0)


def test_a_command_that_takes_no_more_ends_the_pump() -> None:
    sink = SlowSink(error=InvalidState("it has ended"))
    pumped(b"x", sink)
    assert sink.closed == 0


@pytest.mark.parametrize(("typed", "told"), [(b"x\n", b"x\n\x04"), (b"x", b"x\x04\x04"), (b"", b"\x04")])
def test_a_terminal_is_told_of_the_end_by_its_character(typed: bytes, told: bytes) -> None:
    sink = SlowSink()
    pumped(typed, sink, at_end=AtEnd.END_OF_FILE_CHARACTER)
    assert (sink.taken, sink.closed) == (told, 0)


def test_the_beginning_of_the_keys_is_passed_on_where_nothing_follows() -> None:
    reading, writing = os.pipe()
    passed = threading.Event()

    class _Sink(SlowSink):
        def write_some(self, data: bytes, /) -> int:
            self.taken += data
            passed.set()
            return len(data)

    sink = _Sink()
    pump = StdinPump(sink, reading, keys=b"\x10\x11", patience_s=0.01)
    pump.start()
    os.write(writing, b"\x10")
    assert passed.wait(60)
    pump.stop()
    assert sink.taken == b"\x10"
    os.close(reading)
    os.close(writing)


def test_the_beginning_of_the_keys_at_the_end_is_passed_on() -> None:
    sink = SlowSink()
    pumped(b"a\x10", sink, keys=b"\x10\x11")
    assert (sink.taken, sink.closed) == (b"a\x10", 1)


def test_the_keys_are_seen_while_a_command_reads_nothing() -> None:
    reading, writing = os.pipe()
    detached: queue.Queue[bool] = queue.Queue()
    pump = StdinPump(SlowSink(take=0), reading, keys=b"\x10\x11", detached=detached.put)
    pump.start()
    os.write(writing, b"unread")
    os.write(writing, b"\x10\x11")
    assert detached.get(timeout=60) is False
    pump.stop()
    os.close(reading)
    os.close(writing)


def test_a_command_is_left_when_it_has_taken_what_was_typed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves it closes the link: what was still on its way would be lost."""
    monkeypatch.setattr(control_relay, "LAST_WORDS_S", 60)  # a busy machine may stand still for longer than it is
    reading, writing = os.pipe()
    left, went_on = threading.Event(), threading.Event()
    taken_by_then: list[bytes] = []

    class _Sink(SlowSink):
        def write_some(self, data: bytes, /) -> int:
            went_on.wait(60)
            return super().write_some(data)

        def close_stdin(self) -> None:
            raise AssertionError("its input goes on without us")

    def leave(taken: bool) -> None:
        assert taken
        taken_by_then.append(sink.taken)
        left.set()

    sink = _Sink(take=1)
    pump = StdinPump(sink, reading, keys=b"\x10\x11", detached=leave)
    pump.start()
    os.write(writing, b"abc\x10\x11")
    assert not left.wait(0.05)
    went_on.set()
    assert left.wait(60)
    assert taken_by_then == [b"abc"]
    pump.stop()
    os.close(reading)
    os.close(writing)


def test_the_keys_that_detach_are_not_passed_on_and_what_was_before_them_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it typed ahead: the reader must not be past the keys before there is a writer."""
    monkeypatch.setattr(control_relay, "LAST_WORDS_S", 60)
    reading, writing = os.pipe()
    detached: queue.Queue[bool] = queue.Queue()
    sink = SlowSink()
    pump = StdinPump(sink, reading, keys=b"\x10\x11", detached=detached.put)
    os.write(writing, b"ab\x10\x11cd")
    pump.start()
    assert detached.get(timeout=120) is True
    pump.stop()
    assert (sink.taken, detached.empty()) == (b"ab", True)
    os.close(reading)
    os.close(writing)


def test_words_that_were_refused_were_not_taken() -> None:
    reading, writing = os.pipe()
    detached: queue.Queue[bool] = queue.Queue()
    pump = StdinPump(SlowSink(error=Unavailable("gone")), reading, keys=b"\x10\x11", detached=detached.put)
    pump.start()
    os.write(writing, b"ls\x10\x11")
    assert detached.get(timeout=60) is False
    pump.stop()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("unread", [[b"x"] * 50, [bytes(STDIN_BYTES)] * (QUEUED_BYTES // STDIN_BYTES + 1)])
def test_a_command_that_reads_nothing_is_left_with_words_before_the_keys_too(unread: list[bytes]) -> None:
    """Typed one by one, and as much as there is room for; one piece is being offered."""
    reading, writing = os.pipe()
    detached: queue.Queue[bool] = queue.Queue()
    pump = StdinPump(SlowSink(take=0), reading, keys=b"\x10\x11", detached=detached.put)
    pump.start()
    for piece in unread:
        os.write(writing, piece)
        wait_until_read(reading)
    os.write(writing, b"and more\x10\x11")
    assert detached.get(timeout=60) is False
    pump.stop()
    os.close(reading)
    os.close(writing)


def wait_until_read(reading: int) -> None:
    deadline = time.monotonic() + 60
    while select.select([reading], [], [], 0)[0]:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_stopped_pump_takes_no_more() -> None:
    reading, writing = os.pipe()
    sink = SlowSink(take=0)
    pump = StdinPump(sink, reading)
    pump.stop()
    os.write(writing, b"abc")
    assert os.read(reading, 10) == b"abc"
    os.close(reading)
    os.close(writing)
    assert (sink.taken, sink.closed) == (b"", 0)


def test_a_pump_that_is_stopped_leaves_the_keyboard_to_others() -> None:
    reading, writing = os.pipe()
    pump = StdinPump(SlowSink(), reading)
    pump.start()
    pump.stop()
    os.write(writing, b"for the shell")
    assert os.read(reading, 100) == b"for the shell"
    os.close(reading)
    os.close(writing)


def test_output_goes_to_the_descriptor_of_its_stream(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    other_reading, other_writing = os.pipe()
    pieces = (Output("stdout", 0, b"\x00a", False), Output("stderr", 0, b"!", True), Output("stdout", 2, b"b", True))
    relay_output(Source(*pieces), to({"stdout": writing, "stderr": other_writing}), lambda _: None)
    assert os.read(reading, 10) == b"\x00ab"
    assert os.read(other_reading, 10) == b"!"
    os.close(other_reading)
    os.close(other_writing)


def test_lost_output_is_told_and_the_rest_relayed(pipe: tuple[int, int]) -> None:
    told: list[str] = []
    source = Source(OutOfRange("5 bytes are gone"), Output("stdout", 5, b"rest", True))
    relay_output(source, to({"stdout": pipe[1]}), told.append)
    assert told == ["5 bytes are gone"]
    assert os.read(pipe[0], 10) == b"rest"


def test_a_reader_that_is_gone_is_an_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        relay_output(Source(Output("stdout", 0, b"x", False)), to({"stdout": pipe[1]}), lambda _: None)


def test_a_descriptor_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    waits: list[list[int]] = []

    def drain(_: object, writing: list[int], __: object) -> None:
        waits.append(writing)
        os.read(pipe[0], 65536)

    monkeypatch.setattr("select.select", drain)
    write_whole(pipe[1], bytes(70_000))
    assert waits == [[pipe[1]]]


def test_what_is_typed_while_it_is_diverted_is_not_the_commands() -> None:
    near, far = os.pipe()
    taken: list[bytes] = []

    class _Sink:
        got = b""

        def write_some(self, data: bytes, /) -> int:
            self.got += data
            return len(data)

        def close_stdin(self) -> None:
            self.got += b"<end>"

    sink = _Sink()
    pump = StdinPump(sink, near)
    pump.divert(taken.append)
    os.write(far, b"secret")
    os.close(far)
    pump.read_all()
    pump.offer_all()
    pump.stop()
    assert (b"".join(taken), sink.got) == (b"secret", b"<end>")
    os.close(near)
