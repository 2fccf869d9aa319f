from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from host_stub.qemu.qmp import QmpEvent
from host_stub.qemu.running import (
    GO_ON_S,
    SETTLED_S,
    TAIL_BYTES,
    QemuMachine,
    find_panic,
    judge_end,
    size_of,
    tail_of,
)
from host_stub.words import Disk, TellsHalts


@pytest.mark.parametrize(
    ("reason", "status", "panic", "said", "how", "message"),
    [
        ("guest-shutdown", 0, None, "", "powered_off", "powered off"),
        ("guest-reset", 0, None, "", "reset", "started anew"),
        ("guest-reset", 0, "Kernel panic - not syncing: x", "", "panicked", "not syncing: x"),
        ("guest-panic", 0, None, "", "panicked", "panicked"),
        ("guest-shutdown", 0, "Kernel panic - not syncing: x", "", "powered_off", "powered off"),
        ("host-signal", 0, None, "", "killed", "host-signal"),
        (None, -9, None, "", "failed", "signal 9"),
        (None, 1, None, "out of luck", "failed", "with 1: out of luck"),
        ("something-new", 1, None, "", "failed", "with 1"),
    ],
)
def test_the_end_is_judged_by_all_there_is(
    reason: str | None, status: int, panic: str | None, said: str, how: str, message: str
) -> None:
    ended = judge_end(reason, status, panic, said)
    assert (ended.how, ended.exit_status) == (how, status)
    assert message in ended.message


class Answering:
    """A control link whose QEMU lets the guest go on, and finds no room again `full` times."""

    def __init__(self, full: int) -> None:
        self.full = full
        self.asked: list[str] = []
        self.machine: QemuMachine

    async def execute(self, command: str) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append(command)
        if len(self.asked) <= self.full:
            self.machine.see(NO_ROOM)


NO_ROOM = QmpEvent(
    name="BLOCK_IO_ERROR", data={"node-name": "disk0", "action": "stop", "nospace": True, "reason": "No space left"}
)


def test_a_guest_without_room_is_let_go_on_until_it_goes(tmp_path: Path) -> None:
    client = Answering(full=2)
    disks = (Disk(path=tmp_path / "d", serial="cowork-sessions"),)
    machine = client.machine = QemuMachine(None, client, (), tmp_path / "log", disks)  # type: ignore[arg-type]
    assert isinstance(machine, TellsHalts)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.go_on)
            await trio.sleep(GO_ON_S * 2)
            assert (machine.halted, client.asked) == (None, [])
            machine.see(NO_ROOM)
            for _ in range(60):
                assert machine.halted == "the host could not write its disk cowork-sessions: No space left"
                await trio.sleep(1)
                if len(client.asked) == 3:
                    break
            await trio.sleep(SETTLED_S + 1)
            assert machine.halted is None
            await trio.sleep(60)
            assert client.asked == ["cont"] * 3
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_an_error_that_the_guest_is_told_halts_nobody(tmp_path: Path) -> None:
    machine = QemuMachine(None, None, (), tmp_path / "log")  # type: ignore[arg-type]
    machine.see(QmpEvent(name="BLOCK_IO_ERROR", data={"action": "report", "reason": "x"}))
    assert machine.halted is None


def test_the_last_panic_is_the_one() -> None:
    text = "[1.0] Kernel panic - not syncing: one\r\n[2.0] Kernel panic - not syncing: two ]---\r\nmore\n"
    assert find_panic(text) == "Kernel panic - not syncing: two ]---"
    assert find_panic("Kernel panics are rare") is None


def test_only_what_this_life_wrote_is_looked_at(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_text("old\n")
    start = size_of(log)
    log.write_text("old\nnew\n")
    assert tail_of(log, start) == "new\n"
    log.write_text("x" * (2 * TAIL_BYTES))
    assert len(tail_of(log, start)) == TAIL_BYTES
    log.write_text("cut")
    assert tail_of(log, start) == "cut"
    assert tail_of(tmp_path / "none", 0) == ""
