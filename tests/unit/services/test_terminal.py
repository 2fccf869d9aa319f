"""`services.terminal`: what a sandbox may send as its terminal, and a real pty."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import socket
import struct
import termios
import tty

import pytest
import trio

from coworkd.model.errors import InvalidParams, InvalidState
from coworkd.model.process import TtySize
from coworkd.services.spools import Spool
from coworkd.services.stdin import Stdin
from coworkd.services.terminal import ARRIVAL_S, NoTerminal, Terminal, _Held, check_size, drop_message, receive_master
from coworkd.system import spool_file
from tests.unit.services.process_house import in_trio, jump, open_fds, settle

SIZE = TtySize(rows=30, cols=100)


def send(link: socket.socket, *fds: int) -> None:
    link.sendmsg([b"m"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


class Rig:
    """A terminal, its spool, and the slave a command would have."""

    def __init__(self) -> None:
        master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.ended = 0
        self.spool = Spool(spool_file.create("tty"))
        self.terminal = Terminal("one", master, self.spool, self._end)

    def _end(self) -> None:
        self.ended += 1

    def hang_up(self) -> None:
        os.close(self.slave)

    async def wait_for(self, size: int) -> bytes:
        """Reads run in threads: wait for what they bring."""
        while self.spool.end < size:
            await trio.lowlevel.checkpoint()
        return self.spool.read(0, size)[1]

    def close(self) -> None:
        self.terminal.close()
        self.spool.close()


@in_trio
async def test_receive_master_copies_a_master_until_it_is_dropped() -> None:
    before = open_fds()
    ours, theirs = socket.socketpair()
    master, slave = os.openpty()
    send(theirs, master)
    theirs.close()
    os.close(master)
    with ours:
        received = [await receive_master(ours) for _ in range(2)]
        for fd in received:
            assert os.fstat(fd).st_rdev == os.makedev(5, 2)
            os.close(fd)
        os.set_blocking(slave, False)
        with pytest.raises(BlockingIOError):  # it is not hung up: the socket has it
            os.read(slave, 1)
        drop_message(ours)
        assert os.read(slave, 1) == b""
        with pytest.raises(NoTerminal):
            await receive_master(ours)
        drop_message(ours)
    os.close(slave)
    assert open_fds() == before


@pytest.mark.parametrize("kind", ["slave", "file", "null", "two", "none", "path", "hang-up"])
@in_trio
async def test_receive_master_refuses_everything_else_and_keeps_nothing(kind: str) -> None:
    before = open_fds()
    ours, theirs = socket.socketpair()
    master, slave = os.openpty()
    null = os.open("/dev/null", os.O_RDWR)
    path = os.open("/dev/ptmx", os.O_PATH)
    memfd = os.memfd_create("x")
    sent = {"slave": [slave], "file": [memfd], "null": [null], "two": [master, master], "none": [], "path": [path]}
    if kind != "hang-up":
        send(theirs, *sent[kind])
    theirs.close()
    with ours, pytest.raises(NoTerminal):
        await receive_master(ours)
    for fd in (master, slave, null, path, memfd):
        os.close(fd)
    assert open_fds() == before


@in_trio
async def test_receive_master_waits_a_bounded_time() -> None:
    ours, theirs = socket.socketpair()

    async def receive() -> None:
        with pytest.raises(NoTerminal, match=f"within {ARRIVAL_S:g} s"):
            await receive_master(ours)

    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await settle()
            jump(ARRIVAL_S + 0.1)


@in_trio
async def test_terminal_brings_output_until_the_slave_is_closed() -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.terminal.run)
        os.write(rig.slave, b"hello")
        assert await rig.wait_for(5) == b"hello"
        rig.hang_up()
    assert (rig.spool.eof, rig.ended, rig.terminal.fileno()) == (True, 1, -1)
    rig.close()


@in_trio
async def test_terminal_takes_input_by_offset() -> None:
    rig = Rig()
    stdin = Stdin("one", rig.terminal)
    assert await stdin.write(0, b"abc") == 3
    assert await stdin.write(1, b"bcd") == 4
    came = b""
    while len(came) < 4:  # the kernel brings what was written to the other side when it has time
        came += os.read(rig.slave, 100)
    assert came == b"abcd"
    stdin.close()
    rig.hang_up()
    rig.close()


@in_trio
async def test_terminal_input_after_close_is_refused() -> None:
    rig = Rig()
    stdin = Stdin("one", rig.terminal)
    stdin.close()
    with pytest.raises(InvalidState):
        await stdin.write(0, b"abc")
    rig.hang_up()
    rig.close()


@in_trio
async def test_terminal_made_blocking_by_the_command_stops_nobody_else() -> None:
    rig = Rig()
    os.set_blocking(rig.terminal.fileno(), True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.terminal.run)
        os.write(rig.slave, b"x")
        await rig.wait_for(1)
        await settle()
        nursery.cancel_scope.cancel()
    rig.hang_up()
    rig.close()


@in_trio
async def test_resize_is_seen_by_the_slave() -> None:
    rig = Rig()
    rig.terminal.resize(SIZE)
    rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(rig.slave, termios.TIOCGWINSZ, bytes(8)))
    assert (rows, cols) == (30, 100)
    rig.hang_up()
    rig.close()


@in_trio
async def test_resize_after_the_end_is_refused() -> None:
    rig = Rig()
    rig.close()
    with pytest.raises(InvalidState):
        rig.terminal.resize(SIZE)
    rig.hang_up()


@pytest.mark.parametrize(("rows", "cols"), [(0, 1), (1, 0), (65536, 1), (1, -1)])
def test_check_size_refuses_what_the_kernel_cannot_hold(rows: int, cols: int) -> None:
    with pytest.raises(InvalidParams):
        check_size(TtySize(rows=rows, cols=cols))


def test_what_is_there_is_kept_up_to_its_limit() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # gives one piece a read, as a terminal does
    kept = spool_file.create("tty")
    held = _Held(near.detach(), os.dup(kept))
    for _ in range(3):
        far.send(b"x" * 100)
    assert held.keep(250) == 250
    far.send(b"y")
    assert held.keep(1000) == 1
    assert os.pread(kept, 1000, 0) == b"x" * 250 + b"y"
    far.close()
    assert held.keep(1000) == 0
    held.retire()
    assert spool_file.end(kept) == 251
    os.close(kept)


@in_trio
async def test_what_was_read_is_in_the_file_before_a_turn_of_the_loop() -> None:
    """A coworkd that is killed then leaves it to the next one."""
    rig = Rig()
    os.write(rig.slave, b"said")
    assert rig.terminal._held.keep(1000) == 4  # the thread's part alone
    assert Spool.adopt(os.dup(rig.spool.fileno())).read(0, 100) == (0, b"said")
    rig.hang_up()
