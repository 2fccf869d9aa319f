import socket

import msgspec
import pytest
import trio

from coworkd.model import files as words
from coworkd.model.errors import CoworkError, InvalidState, LimitExceeded, Unavailable
from coworkd.services.files_end import FileEnd, watch_for_stall
from tests.unit.services.process_house import in_trio, jump, settle


class Far:
    """The worker's ends."""

    def __init__(self, *, upload: bool) -> None:
        ours, self.stream = socket.socketpair()
        our_control, self.control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end = FileEnd(ours, our_control, "work", upload=upload)

    def say(self, outcome: words.TransferEnd) -> None:
        self.control.send(msgspec.msgpack.encode(outcome))
        self.close()

    def close(self) -> None:
        self.stream.close()
        self.control.close()


@in_trio
async def test_bytes_come_and_then_the_end_that_the_worker_told() -> None:
    far = Far(upload=False)
    assert far.end.read_nowait(10) is None
    far.stream.send(b"hello")
    await far.end.wait_readable()
    assert far.end.read_nowait(3) == b"hel"
    far.say(words.Moved(entries=1, size=5))
    assert far.end.read_nowait(10) == b"lo"
    assert far.end.read_nowait(10) == b""
    assert far.end.outcome == words.Moved(entries=1, size=5)
    far.end.close()
    far.end.close()


@in_trio
async def test_an_end_without_a_word_is_a_loss() -> None:
    far = Far(upload=False)
    far.close()
    with pytest.raises(Unavailable, match="ended before"):
        far.end.read_nowait(10)
    far.end.close()


@in_trio
async def test_a_fault_is_its_error() -> None:
    far = Far(upload=True)
    far.say(words.FileFault(errno=28, message="No space left on device", path=b"/a"))
    with pytest.raises(LimitExceeded, match="No space left"):
        far.end.read_nowait(10)
    far.end.close()


@in_trio
async def test_what_was_left_out_is_told_at_the_end() -> None:
    far = Far(upload=False)
    far.say(words.Moved(entries=1, size=5, omitted=1, left_out=(b"fifo: neither",)))
    with pytest.raises(InvalidState) as caught:
        far.end.read_nowait(10)
    assert caught.value.details["stage"] == "left_out"
    far.end.close()


@in_trio
async def test_a_fault_is_told_also_when_bytes_and_finish_were_not_read() -> None:
    """The kernel tells a reset first where a unix socket was closed with something unread."""
    far = Far(upload=True)
    far.end.write_nowait(memoryview(b"unread"))
    far.end.close_write()
    far.say(words.FileFault(errno=None, message="no archive", stage="archive"))
    with pytest.raises(CoworkError, match="no archive"):
        far.end.read_nowait(10)
    far.end.close()


@in_trio
async def test_close_write_says_how_much_there_was() -> None:
    far = Far(upload=True)
    assert far.end.write_nowait(memoryview(b"12345")) == 5
    far.end.close_write()
    far.end.close_write()
    assert msgspec.msgpack.decode(far.control.recv(100), type=words.Finish).size == 5
    assert (far.stream.recv(10), far.stream.recv(10)) == (b"12345", b"")
    with pytest.raises(OSError, match="takes no bytes"):
        far.end.write_nowait(memoryview(b"more"))
    far.close()
    far.end.close()


@in_trio
async def test_a_close_without_close_write_says_nothing() -> None:
    far = Far(upload=True)
    far.end.write_nowait(memoryview(b"12345"))
    far.end.close()
    assert far.control.recv(100) == b""
    with pytest.raises(trio.ClosedResourceError):
        await far.end.wait_readable()
    with pytest.raises(trio.ClosedResourceError):
        await far.end.wait_writable()
    far.close()


@in_trio
async def test_a_full_pipe_takes_nothing_until_there_is_room() -> None:
    far = Far(upload=True)
    total = 0
    while count := far.end.write_nowait(memoryview(bytes(65536))):
        total += count
    while total:
        total -= len(far.stream.recv(65536))
    await far.end.wait_writable()
    assert far.end.write_nowait(memoryview(b"x")) == 1
    far.close()
    far.end.close()


@in_trio
async def test_whose_turn_it_is() -> None:
    up, down = Far(upload=True), Far(upload=False)
    assert up.end.waits_for_worker() is None  # the host has to send
    up.end.write_nowait(memoryview(b"12345"))
    assert up.end.waits_for_worker() is not None
    up.stream.recv(5)
    assert up.end.waits_for_worker() is None
    up.end.close_write()
    assert up.end.waits_for_worker() is not None  # until it says how it ended
    assert down.end.waits_for_worker() == (0, 0)
    down.stream.send(b"x")
    assert down.end.waits_for_worker() is None  # the host has to read
    for each in (up, down):
        each.close()
        each.end.close()
        assert each.end.waits_for_worker() is None


@in_trio
async def test_a_stall_is_told_once_and_headway_is_none() -> None:
    far = Far(upload=False)
    stalls: list[float] = []

    async def watch() -> None:
        await watch_for_stall(far.end, lambda: stalls.append(trio.current_time()), stall_s=30, finish_s=300, every_s=5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        for number in range(10):  # something comes every 20 s
            await _pass(20)
            far.stream.send(b"x")
            await settle()
            far.end.read_nowait(1)
            assert not stalls, number
        await _pass(40)
        assert len(stalls) == 1
    far.close()
    far.end.close()


async def _pass(seconds: int) -> None:
    for _ in range(seconds // 5):
        jump(5)
        await settle()


@in_trio
async def test_the_end_of_an_upload_may_take_longer() -> None:
    far = Far(upload=True)
    stalls: list[float] = []
    far.end.close_write()

    async def watch() -> None:
        await watch_for_stall(
            far.end, lambda: stalls.append(trio.current_time()), stall_s=30, finish_s=300, every_s=5
        )  # fmt: skip

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await _pass(290)
        assert not stalls
        await _pass(20)
        assert len(stalls) == 1
    far.close()
    far.end.close()


@in_trio
async def test_a_watch_ends_with_what_it_watches() -> None:
    far = Far(upload=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: watch_for_stall(far.end, lambda: None, stall_s=30, finish_s=300, every_s=5))
        await settle()
        far.end.close()
    far.close()


@pytest.mark.parametrize("said", [b"\xc1", b"\x82\xa4type\xa5fault\xa7message\xa1\xff"])
def test_a_word_that_is_none_is_a_loss(said: bytes) -> None:
    """The second has a text that is no UTF-8: the worker has a session's rights, and no more of our trust."""

    @in_trio
    async def run() -> None:
        far = Far(upload=False)
        far.control.send(said)
        far.close()
        with pytest.raises(Unavailable, match="broke off"):
            far.end.read_nowait(10)
        far.end.close()

    run()
