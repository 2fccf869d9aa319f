"""A keeper in a process of its own, over a machine that is a process: started, asked, ended, killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from host_stub import session_disk
from host_stub.bundle import Bundle
from host_stub.keeper_client import KeeperClient, KeeperGone, open_keeper
from host_stub.keeper_lock import is_held, read_record
from host_stub.words import MachineEvent, MachineState, Trouble
from tests.unit.host_stub.conftest import keeper_pid
from tests.unit.host_stub.image_lab import make_bundle

Start = Callable[[Bundle], int]
SOON_S = 20.0


def until_over(keeper: KeeperClient) -> list[MachineEvent]:
    """Every event up to the end of the machine, or of the keeper."""
    seen: list[MachineEvent] = []
    try:
        while not any(event.state in (MachineState.STOPPED, MachineState.CRASHED) for event in seen):
            seen += keeper.events(after=seen[-1].seq if seen else 0, wait_s=SOON_S)[0]
    except KeeperGone:
        pass
    return seen


def reap(bundle: Bundle) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(keeper_pid(bundle), 0)[1])


def test_a_machine_is_started_seen_and_stopped(bundle: Bundle, start: Start) -> None:
    pid = start(bundle)
    with open_keeper(bundle) as keeper:
        assert keeper is not None
        status = keeper.status()
        assert (status.state, status.pid, status.keeper_pid) == (MachineState.STARTING, pid, keeper_pid(bundle))
        assert (status.uri, status.bundle) == (bundle.uri, str(bundle.path))
        assert status.image is not None
        assert status.image.version == "1"
        assert (bundle.run / "vsock.sock_5006").is_socket()
        stopped = keeper.stop(budget_s=SOON_S, reason="test")
        assert stopped.state is MachineState.STOPPED
    assert reap(bundle) == 0
    record = read_record(bundle)
    assert record is not None
    assert (record.state, record.details) == (MachineState.STOPPED, {"how": "powered_off"})
    assert not is_held(bundle)
    assert sorted(path.name for path in bundle.run.iterdir()) == ["lock"]
    assert "stopping: the machine is being stopped: test" in (bundle.logs / "keeper.log").read_text()


def test_nobody_else_may_have_a_running_machine(bundle: Bundle, start: Start) -> None:
    start(bundle)
    with pytest.raises(Trouble) as caught:
        start(bundle)
    assert caught.value.code == "already_running"
    assert (bundle.keeper_socket.stat().st_mode & 0o777, bundle.run.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_machine_that_dies_at_boot_is_told_with_its_last_line(tmp_path: Path, start: Start) -> None:
    bundle = make_bundle(tmp_path, command_line="dies")
    start(bundle)
    with open_keeper(bundle) as keeper:
        if keeper is not None:
            until_over(keeper)
    assert reap(bundle) == 1
    record = read_record(bundle)
    assert record is not None
    assert record.state is MachineState.CRASHED
    assert record.message.endswith("its serial console said last: Linux boots")
    assert record.details["serial"] == ["Linux boots"]


def test_a_guest_that_heeds_nothing_is_ended_by_the_budget(tmp_path: Path, start: Start) -> None:
    bundle = make_bundle(tmp_path, command_line="hangs")
    start(bundle)
    with open_keeper(bundle) as keeper:
        assert keeper is not None
        assert keeper.stop(budget_s=0.2, reason="test").state is MachineState.STOPPED
    assert reap(bundle) == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_stop_the_machine(tmp_path: Path, start: Start, signals: int) -> None:
    bundle = make_bundle(tmp_path, command_line="hangs" if signals == 2 else "")
    start(bundle)
    with open_keeper(bundle) as keeper:
        assert keeper is not None
        os.kill(keeper_pid(bundle), signal.SIGTERM)
        after = 0
        while signals == 2:  # the second one, once the first was heeded
            events, _ = keeper.events(after=after, wait_s=SOON_S)
            after = events[-1].seq
            if any(event.state is MachineState.STOPPING for event in events):
                os.kill(keeper_pid(bundle), signal.SIGINT)
                break
        until_over(keeper)
    assert reap(bundle) == 0


def test_a_killed_keeper_takes_its_machine_along_and_the_next_one_tells(bundle: Bundle, start: Start) -> None:
    machine = psutil.Process(start(bundle))
    first = keeper_pid(bundle)
    os.kill(first, signal.SIGKILL)
    assert reap(bundle) == -signal.SIGKILL
    machine.wait(SOON_S)
    start(bundle)
    with open_keeper(bundle) as keeper:
        assert keeper is not None
        said = [event.message for event in keeper.events(after=0, wait_s=0)[0]]
    assert any(f"the last keeper (process {first}) was killed while the machine was starting" in line for line in said)


def test_a_trouble_before_the_start_is_told_to_who_starts(tmp_path: Path, start: Start) -> None:
    bundle = make_bundle(tmp_path, command_line="nothypervisor")
    with pytest.raises(Trouble, match="there is no hypervisor") as caught:
        start(bundle)
    assert (caught.value.code, caught.value.remedy) == ("no_hypervisor", "install one")
    assert not is_held(bundle)


def test_a_damaged_image_is_mended_and_told(bundle: Bundle, start: Start) -> None:
    (bundle.path / "rootfs.img").unlink()
    start(bundle)
    with open_keeper(bundle) as keeper:
        assert keeper is not None
        said = [event.message for event in keeper.events(after=0, wait_s=0)[0] if event.kind == "trouble"]
    assert said == ["rootfs.img is missing: it was made again from rootfs.img.zst"]


def test_the_session_disk_grows_under_a_running_machine(bundle: Bundle, start: Start) -> None:
    start(bundle)
    with open_keeper(bundle) as keeper:
        assert keeper is not None
        keeper.grow(128 << 20)
        with pytest.raises(Trouble) as caught:
            keeper.grow(64 << 20)
    assert caught.value.code == "would_shrink"
    assert session_disk.look_at(bundle.session_disk).size_bytes == 128 << 20


def test_a_restart_is_another_process_of_the_same_keeper(bundle: Bundle, start: Start) -> None:
    first = start(bundle)
    with open_keeper(bundle) as keeper:
        assert keeper is not None
        keeper.restart(budget_s=SOON_S, reason="test")
        after = 0
        while (status := keeper.status()).pid in (None, first):
            events, _ = keeper.events(after=after, wait_s=SOON_S)
            after = events[-1].seq if events else after
        assert (status.restarts, status.keeper_pid) == (1, keeper_pid(bundle))
