"""What stands before the rest is built: locks, signals, launcher, disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec import structs

from coworkd.bring_up import Ending, Ground
from coworkd.cli.daemon import compose_local_config
from coworkd.config import Config, StorageConfig
from coworkd.model import launch
from coworkd.model.errors import InvalidState
from tests.unit.test_app import Program


def config(place: Path, storage: StorageConfig | None = None) -> Config:
    made = compose_local_config(state=str(place / "state"), socket=str(place / "s"))
    os.makedirs(os.path.dirname(made.launcher_socket))
    return structs.replace(made, storage=storage) if storage else made


async def come_up(ground: Ground, program: Program) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(program.serve)
        with trio.fail_after(60):
            await ground.come_up(nursery)
        nursery.cancel_scope.cancel()
    program._ours.close()


def test_a_directory_and_the_launcher_come_up_each_as_a_timed_stage(tmp_path: Path) -> None:
    launcher = Program(launch)
    ground = Ground(config(tmp_path), connect=launcher.connect)
    trio.run(come_up, ground, launcher)
    stages = [stage.name for stage in ground.health.hello_answer(()).stages]
    assert stages == ["storage", "launcher"]
    assert ground.storage.kind == "directory"
    assert "storage" not in ground.health.degraded
    ground.close()


def test_a_second_coworkd_on_one_directory_never_asks_the_launcher(tmp_path: Path) -> None:
    launcher, second = Program(launch), Program(launch)
    there = config(tmp_path)
    ground = Ground(there, connect=launcher.connect)
    trio.run(come_up, ground, launcher)
    other = Ground(there, connect=second.connect)

    async def refused() -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(InvalidState, match=f"pid {os.getpid()}"):
                await other.come_up(nursery)
            nursery.cancel_scope.cancel()

    trio.run(refused)
    assert second.asked == []
    other.close()
    ground.close()
    again = Ground(there, connect=Program(launch).connect)
    again.close()


LISTENS = """
import os, signal, sys
from coworkd.system.supervised import listen_early
listener, early = listen_early(sys.argv[1])
os.rename(early, sys.argv[1])
print("listens", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("locked", [True, False])
def test_who_was_started_and_has_nobody_is_ended_where_no_other_coworkd_can_have_it(
    tmp_path: Path, locked: bool
) -> None:
    path = str(tmp_path / "listens")
    launcher = Program(launch)
    ground = Ground(config(tmp_path), connect=launcher.connect)
    if locked:
        trio.run(come_up, ground, launcher)
    with subprocess.Popen([sys.executable, "-c", LISTENS, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"listens\n"
        trio.run(ground.end_unserved, path, str(tmp_path / "nobody"))
        assert (child.poll() == -signal.SIGTERM) is locked
        child.kill()
    ground.close()


async def _never() -> trio.socket.SocketType:
    await trio.sleep_forever()
    raise AssertionError


def test_with_a_disk_the_lock_of_the_launcher_comes_first(tmp_path: Path) -> None:
    there = config(tmp_path, StorageConfig(kind="loop", loop_file="/nowhere"))
    first, second = Ground(there, connect=_never), Ground(there, connect=_never)

    async def waits_for_its_launcher() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.come_up, nursery)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(InvalidState, match="the launcher at"):
                await second.come_up(nursery)
            nursery.cancel_scope.cancel()

    trio.run(waits_for_its_launcher)
    second.close()
    first.close()


def test_the_first_reason_to_end_counts_and_coming_up_is_given_up() -> None:
    async def run() -> None:
        ending = Ending()
        with ending.coming_up() as scope:
            ending.end("first")
            ending.end("second", again=True)
            await trio.sleep_forever()
        assert scope.cancelled_caught
        with ending.coming_up() as later:
            await trio.sleep_forever()
        assert later.cancelled_caught
        assert (ending.reason, ending.again) == ("first", False)

    trio.run(run)


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "signal SIGTERM"), (signal.SIGINT, "signal SIGINT")])
def test_a_signal_ends_it_and_a_hangup_is_handed_on(number: signal.Signals, reason: str) -> None:
    heard: list[str] = []

    async def hangup() -> None:
        heard.append("hangup")

    async def run() -> None:
        ending = Ending()
        async with trio.open_nursery() as nursery:
            await nursery.start(ending.take_signals)
            os.kill(os.getpid(), signal.SIGHUP)  # before anybody wants to hear of it
            await trio.testing.wait_all_tasks_blocked(0.01)
            ending.on_hangup = hangup
            os.kill(os.getpid(), signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked(0.01)
            os.kill(os.getpid(), number)
            await ending.wanted.wait()
            nursery.cancel_scope.cancel()
        assert ending.reason == reason

    trio.run(run)
    assert heard == ["hangup"]


def test_what_degrades_in_a_worker_thread_is_told_in_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are woken by it, which only the loop's own thread may do."""
    launcher = Program(launch)
    ground = Ground(config(tmp_path), connect=launcher.connect)
    told: list[tuple[object, bool]] = []

    def publish(_name: str, params: dict[str, object]) -> None:
        told.append((params["degraded"], trio.lowlevel.in_trio_run()))

    async def main() -> None:
        await come_up(ground, launcher)
        monkeypatch.setattr(ground.events, "publish", publish)
        await trio.to_thread.run_sync(ground.health.degrade, "accounts", "no useradd")
        await trio.testing.wait_all_tasks_blocked()
        ground.health.degrade("accounts", None)
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    ground.close()
    assert [inside for _, inside in told] == [True, True]
    assert ["accounts" in str(degraded) for degraded, _ in told] == [True, False]
