"""`services.spools` against a model: any order of writes, reads, readers and ends keeps the same bytes at the same offsets."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coworkd.model.process import OnFull
from coworkd.services.pumps import Pump
from coworkd.services.spools import Spool
from coworkd.system import spool_file

PAGE = spool_file.PAGE_BYTES


class Reader:
    """A follower that checks what it is given against everything that was written."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def more(self) -> None: ...


class SpoolMachine(RuleBasedStateMachine):
    """The model is a bytearray of all that went into the pipe, and the count of what must have left it."""

    @initialize(pages=st.integers(1, 6), on_full=st.sampled_from([None, "block", "drop_oldest"]))
    def open(self, pages: int, on_full: OnFull | None) -> None:
        self.limit = pages * PAGE
        self.slack = max(PAGE, self.limit // 8)
        self.on_full = on_full
        self.spool = Spool(spool_file.create("fuzz"), limit_bytes=self.limit, on_full=on_full)
        read, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)
        self.ended = 0
        self.pump = Pump(read, self.spool, ended=self._end, failed=lambda error: None)
        self.written = bytearray()
        self.readers: list[Reader] = []

    def _end(self) -> None:
        self.ended += 1

    @precondition(lambda self: self.write_fd >= 0)
    @rule(size=st.integers(1, 5 * PAGE), seed=st.integers(0, 255))
    def write(self, size: int, seed: int) -> None:
        data = bytes((seed + number) & 0xFF for number in range(size))
        try:
            self.written += data[: os.write(self.write_fd, data)]
        except BlockingIOError:
            assert len(self.written) - self.spool.end >= PAGE

    @rule()
    def pump_now(self) -> None:
        before, room = self.spool.end, self.spool.room()
        self.pump.take()
        if room and before < len(self.written):
            assert self.spool.end > before
        if not room:
            assert self.spool.end == before

    @rule(where=st.floats(0, 1))
    def attach(self, where: float) -> None:
        first, end = self.spool.first, self.spool.end
        reader = Reader(first + int((end - first) * where))
        self.spool.follow(reader)
        self.readers.append(reader)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), size=st.integers(1, 3 * PAGE))
    def read(self, data: st.DataObject, size: int) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        offset, got = self.spool.read(reader.offset, size)
        assert offset == max(reader.offset, self.spool.first)
        assert got == self.written[offset : min(offset + size, self.spool.end)]
        if self.on_full != "drop_oldest":
            assert offset == reader.offset
        reader.offset = offset + len(got)
        self.spool.delivered(reader.offset)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        self.readers.remove(reader)
        self.spool.unfollow(reader)

    @precondition(lambda self: self.write_fd >= 0)
    @rule()
    def end(self) -> None:
        os.close(self.write_fd)
        self.write_fd = -1

    @rule()
    def restart(self) -> None:
        """What a new supervisor finds is what this one knows."""
        again = Spool.adopt(os.dup(self.spool._fd), limit_bytes=self.limit)
        assert again.end == self.spool.end
        assert again.first <= max(self.spool.first, 0)
        assert again.read(self.spool.first, self.limit * 3)[1] == self.written[self.spool.first : self.spool.end]
        again.close()

    @invariant()
    def keeps_within_bounds(self) -> None:
        spool = self.spool
        assert 0 <= spool.first <= spool.end <= len(self.written)
        assert min(self.limit, spool.end) <= spool.kept_bytes
        assert spool.kept_bytes < self.limit + self.slack
        assert spool.first == 0 or spool.first % PAGE == 0
        assert spool_file.end(spool._fd) == spool.end

    @invariant()
    def ends_after_the_last_byte(self) -> None:
        if self.spool.eof:
            assert self.write_fd == -1
            assert self.spool.end == len(self.written)
        assert self.ended == int(self.spool.eof)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.pump.close()
            self.spool.close()
            if self.write_fd >= 0:
                os.close(self.write_fd)


SpoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestSpools = SpoolMachine.TestCase
