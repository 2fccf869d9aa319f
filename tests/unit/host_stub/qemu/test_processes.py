"""Real children of this test: how they end, and that they end with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from host_stub.qemu.processes import KEPT_BYTES, Child, start_child
from host_stub.words import Trouble

REPO = Path(__file__).resolve().parents[4]
LEASHES = [False, True] if sys.platform == "linux" else [True]
PARENT = """
import sys, trio
from host_stub.qemu.processes import start_child
async def main():
    async with trio.open_nursery() as nursery:
        writer = int(sys.argv[2])
        code = f"import os, time; os.write({writer}, str(os.getpid()).encode()); time.sleep(300)"
        child = start_child("child", [sys.executable, "-c", code], pass_fds=(writer,), leash=sys.argv[1] == "True")
        nursery.start_soon(child.run)
        await trio.sleep_forever()
trio.run(main)
"""


def with_child(argv: list[str], leash: bool, ask: Callable[[Child], Awaitable[None]]) -> Child:
    made: list[Child] = []

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                child = start_child("child", argv, leash=leash)
                made.append(child)
                nursery.start_soon(child.run)
                await ask(child)

    trio.run(main)
    return made[0]


@pytest.mark.parametrize("leash", LEASHES)
def test_status_and_last_words_are_kept(leash: bool) -> None:
    async def ask(child: Child) -> None:
        assert await child.wait() == 3

    child = with_child(["sh", "-c", "echo one; echo two >&2; exit 3"], leash, ask)
    assert child.last_lines() == "one\ntwo"
    assert child.last_lines(1) == "two"


@pytest.mark.parametrize("leash", LEASHES)
def test_kill_ends_it(leash: bool) -> None:
    async def ask(child: Child) -> None:
        assert child.status is None
        child.kill()
        assert await child.wait() == -signal.SIGKILL

    with_child(["sleep", "300"], leash, ask)


@pytest.mark.parametrize("leash", LEASHES)
def test_cancelling_its_owner_ends_it(leash: bool) -> None:
    pids: list[int] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            child = start_child("child", ["sleep", "300"], leash=leash)
            pids.append(child.pid)
            nursery.start_soon(child.run)
            nursery.cancel_scope.cancel()

    trio.run(main)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_one_that_talks_without_end_costs_no_more() -> None:
    async def ask(child: Child) -> None:
        assert await child.wait() == 0

    child = with_child(["sh", "-c", "yes | head -c 1000000; echo; echo last"], False, ask)
    assert child.last_lines(1) == "last"
    assert len(child.last_lines(10**6)) <= KEPT_BYTES


def test_what_it_left_behind_holds_nobody_up() -> None:
    async def ask(child: Child) -> None:
        assert await child.wait() == 0

    with_child(["sh", "-c", "sleep 300 & exit 0"], False, ask)


@pytest.mark.parametrize("leash", LEASHES)
def test_it_ends_when_we_are_killed(leash: bool) -> None:
    reader, writer = os.pipe()
    argv = [sys.executable, "-c", PARENT, str(leash), str(writer)]
    with subprocess.Popen(argv, pass_fds=(writer,), cwd=REPO) as parent:
        os.close(writer)
        pid = int(os.read(reader, 100))
        parent.kill()
    # The pipe ends when all who hold its other end have: the parent, the child, and what stands between them.
    assert os.read(reader, 100) == b""
    os.close(reader)
    assert pid != parent.pid


def test_what_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Trouble, match="child cannot be started") as caught:
        start_child("child", ["x"], leash=False)
    assert caught.value.code == "cannot_start"
