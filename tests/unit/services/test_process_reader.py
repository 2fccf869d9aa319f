"""`services.process_reader`: turns, ends, and the exit behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from coworkd.model.process import Exit, ExitRecord, OutputState, StreamName
from coworkd.services.process_reader import ProcessReader
from coworkd.services.spools import Spool
from coworkd.system import spool_file
from tests.unit.services.process_house import (
    PAGE,
    FakeLink,
    Output,
    encode_output,
    in_trio,
    settle,
)
from tests.unit.services.process_house import encode_notification as house_notification
from tests.unit.services.spool_house import put

EXIT = {"exit": "told"}


def encode_notification(method: str, params: Mapping[str, Any]) -> list[bytes | memoryview]:
    """An exit as the house has it; output behind a gap as output, with what was dropped."""
    if method == "process.exit":
        return house_notification(method, params)
    GAPS.append(tuple(params["dropped"]))
    return encode_output(params["process"], params["stream"], params["offset"], params["data"], "eof" in params)


GAPS: list[tuple[int, ...]] = []


@pytest.fixture(autouse=True)
def no_gaps_yet() -> None:
    GAPS.clear()


class Rig:
    """A reader of two spools, attached to a link."""

    def __init__(self, **options: Any) -> None:
        self.link = FakeLink()
        self.spools: dict[StreamName, Spool] = {
            name: Spool(spool_file.create(name), **options) for name in ("stdout", "stderr")
        }
        self.gone = 0
        self.reader = ProcessReader(
            "one",
            self.link,
            {name: (spool, 0) for name, spool in self.spools.items()},
            encode_output=encode_output,
            encode_notification=encode_notification,
            gone=self._leave,
        )
        self.link.attach(self.reader)

    def _leave(self, reader: ProcessReader) -> None:
        self.gone += 1

    def finish(self, *streams: StreamName) -> None:
        for name in streams:
            self.spools[name].finish()

    def end(self, output: OutputState = "complete") -> None:
        record = ExitRecord(
            process="one",
            session="work",
            exit=Exit(code=0, signal=None, reason="exited"),
            output=output,
            bytes={name: spool.total for name, spool in self.spools.items()},
            rusage=None,
            started_at=0.0,
            ended_at=0.0,
        )
        self.reader.exited(record, EXIT)

    def close(self) -> None:
        self.reader.leave()
        for spool in self.spools.values():
            spool.close()


def test_streams_take_turns() -> None:
    rig = Rig()
    put(rig.spools["stdout"], b"abcd")
    put(rig.spools["stderr"], b"wxyz")
    assert rig.link.pull(limit_bytes=2) == [
        Output("stdout", 0, b"ab", False),
        Output("stderr", 0, b"wx", False),
        Output("stdout", 2, b"cd", False),
        Output("stderr", 2, b"yz", False),
    ]
    rig.close()


def test_more_bytes_wake_the_link() -> None:
    rig = Rig()
    put(rig.spools["stderr"], b"x")
    assert rig.link.woken == 1
    rig.close()


def test_eof_is_on_the_last_frame_and_told_once() -> None:
    rig = Rig()
    put(rig.spools["stdout"], b"abc")
    rig.finish("stdout")
    assert rig.link.pull(limit_bytes=2) == [Output("stdout", 0, b"ab", False), Output("stdout", 2, b"c", True)]
    assert rig.link.pull() == []
    rig.close()


def test_eof_behind_data_that_was_told_is_an_empty_frame() -> None:
    rig = Rig()
    put(rig.spools["stdout"], b"abc")
    rig.link.pull()
    rig.finish("stdout")
    assert rig.link.pull() == [Output("stdout", 3, b"", True)]
    rig.close()


@in_trio
async def test_exit_waits_for_every_stream_and_detaches() -> None:
    rig = Rig()
    put(rig.spools["stdout"], b"abc")
    rig.finish("stdout", "stderr")
    rig.end()
    assert rig.link.pull() == [Output("stdout", 0, b"abc", True), Output("stderr", 0, b"", True), EXIT]
    assert rig.gone == 1
    await settle()
    assert rig.link.sources == []
    assert rig.gone == 1
    rig.close()


@in_trio
async def test_exit_with_a_stream_still_open_comes_behind_what_was_there() -> None:
    rig = Rig()
    put(rig.spools["stdout"], b"abc")
    rig.finish("stderr")
    rig.end("still_open")
    assert rig.link.pull() == [Output("stdout", 0, b"abc", False), Output("stderr", 0, b"", True), EXIT]
    await settle()
    rig.close()


@in_trio
async def test_exit_counts_bytes_that_are_gone_as_told() -> None:
    rig = Rig(limit_bytes=PAGE, on_full="drop_oldest")
    put(rig.spools["stdout"], b"x" * 4 * PAGE)
    rig.finish("stdout", "stderr")
    rig.end("truncated")
    got = rig.link.pull()
    assert got[0] == Output("stdout", 3 * PAGE, b"x" * PAGE, True)
    assert GAPS == [(0, 3 * PAGE)]
    assert got[-1] == EXIT
    await settle()
    rig.close()


@in_trio
async def test_reader_that_left_holds_nothing_back() -> None:
    rig = Rig(limit_bytes=PAGE)
    put(rig.spools["stdout"], b"x" * PAGE)
    assert rig.spools["stdout"].room() == 0
    rig.link.close()
    assert rig.spools["stdout"].room() == PAGE
    assert rig.gone == 1
    await trio.lowlevel.checkpoint()
    rig.close()


def test_a_reader_that_was_overtaken_is_told_what_went() -> None:
    rig = Rig(limit_bytes=PAGE, on_full="drop_oldest")
    put(rig.spools["stdout"], b"a" * 10)
    assert rig.link.pull(limit_bytes=10) == [Output("stdout", 0, b"a" * 10, False)]
    put(rig.spools["stdout"], b"x" * 4 * PAGE)
    (frame,) = rig.link.pull()
    assert (frame.offset, GAPS) == (3 * PAGE, [(10, 3 * PAGE)])
    put(rig.spools["stdout"], b"more")
    assert rig.link.pull() == [Output("stdout", 4 * PAGE + 10, b"more", False)]
    assert len(GAPS) == 1
    rig.close()


@in_trio
async def test_what_a_cut_stream_threw_away_is_told_with_its_end() -> None:
    rig = Rig()
    spool = rig.spools["stdout"]
    put(spool, b"kept")
    spool.cut()
    spool_file.skip(spool._fd, 100)
    spool._advance(100)
    assert rig.link.pull() == [Output("stdout", 0, b"kept", False)]
    rig.finish("stdout", "stderr")
    rig.end("truncated")
    got = rig.link.pull()
    assert Output("stdout", 104, b"", True) in got
    assert GAPS == [(4, 104)]
    assert got[-1] == EXIT
    await settle()
    rig.close()
