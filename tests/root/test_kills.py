"""kill -9 of anything, at random, while commands run: no end is lost, nobody waits for ever, and nothing is left.

Each round starts a few commands that say numbered lines, wait for a word on stdin, and say some more; meanwhile one-shots run one after the
other. Then one of the programs is killed. Whoever was not killed must end as if nothing had been, output and all; the one that was has an
exit, and what it said is a beginning of what it would have said.

`COWORKD_KILL_ROUNDS` says how many rounds, `COWORKD_KILL_SEED` where the dice begin; a failure names both.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client, connect
from coworkd.model.errors import InvalidState, NotFound, StartFailed, Unavailable
from coworkd.model.process import ExitRecord
from tests.root.accounting import Books, cgroup_root, parent_of
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import children_of, exited, fresh_mark, living, wait_until

ROUNDS = int(os.environ.get("COWORKD_KILL_ROUNDS", "30"))
SEED = int(os.environ.get("COWORKD_KILL_SEED", "6"))
COMMANDS = 4
LINES = 200
ANSWER_S = 60
VICTIMS = ("coworkd", "coworkd", "egress", "command", "init", "monitor", "anything")

pytestmark = pytest.mark.needs("bubblewrap")


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last + 1))


def script(mark: str) -> str:
    say = "while [ $i -lt {} ]; do i=$((i+1)); echo line $i; done"
    return f"# {mark}\ni=0; {say.format(LINES)}; read word; {say.format(2 * LINES)}; exit 7"


WHOLE = lines(1, 2 * LINES)


class Field:
    """One coworkd that is started again whenever it was killed, its launcher, and somebody who runs one-shots all the time."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._over = threading.Event()
        self.failures: list[str] = []
        self.daemon = self._start()
        self.client = self._connect()
        self.client.session_ensure(name="field")
        self.launcher = self.client.info().launcher_pid
        self.one_shots = 0
        self._runner = threading.Thread(target=self._run_one_shots)

    def _start(self) -> Daemon:
        return self._stack.enter_context(running_daemon(self._directory))

    def _connect(self) -> Client:
        return self._stack.enter_context(connect(self.daemon.uri, client_name="kills", reconnect_s=ANSWER_S))

    def kill_coworkd(self) -> None:
        self.daemon.child.kill()
        self.daemon.child.wait()
        self.daemon = self._start()

    def below_launcher(self) -> list[int]:
        """Everything the launcher has started."""
        found: list[int] = []
        waiting = [self.launcher]
        while waiting:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children = children_of(waiting.pop())
                found += children
                waiting += children
        return found

    def _run_one_shots(self) -> None:
        with connect(self.daemon.uri, client_name="one-shots", reconnect_s=ANSWER_S) as client:
            while not self._over.is_set():
                said = f"{self.one_shots}".encode()
                try:
                    ran = client.run("field", ["echo", said])
                except (Unavailable, StartFailed):  # coworkd, or its sandbox, was killed meanwhile
                    continue
                if ran.exit.signal is None and (ran.exit, ran.stdout) != (exited(0), said + b"\n"):
                    self.failures.append(f"one-shot {said!r}: {ran}")
                self.one_shots += 1

    def begin(self) -> None:
        self._runner.start()

    def stop(self) -> None:
        self._over.set()
        if self._runner.ident is not None:
            self._runner.join()

    @property
    def books(self) -> Books:
        return Books(self.daemon.child.pid, self.launcher, cgroup_root(self.daemon))


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    with contextlib.ExitStack() as stack:
        made = Field(tmp_path / "d", stack)
        stack.callback(made.stop)
        yield made


class Round:
    def __init__(self, field: Field, number: int) -> None:
        self.field = field
        self.mark = fresh_mark()
        self.dice = random.Random(f"{SEED} {number}")
        self.ids = [f"r{number}-{each}" for each in range(COMMANDS)]
        self.said = f"round {number} of seed {SEED}: "

    def play(self) -> str:
        field, dice = self.field, self.dice
        for id in self.ids:
            field.client.start("field", ["sh", "-c", script(self.mark)], id=id, stdin=True, attach=False)
        time.sleep(dice.uniform(0.0, 0.03))  # any moment of theirs will do
        victim = dice.choice(VICTIMS)
        chosen = dice.choice(self.ids)
        self._kill(victim, chosen)
        for id in self.ids:
            with contextlib.suppress(InvalidState, NotFound):  # it was killed
                field.client.process_write_stdin(process=id, offset=0, data=b"go\n")
        ends = {id: field.client.process_wait(process=id, timeout_s=ANSWER_S) for id in self.ids}
        spared = [id for id in self.ids if victim not in ("command", "init", "monitor", "anything") or id != chosen]
        hit = [id for id in self.ids if ends[id].exit != exited(7)]
        allowed = set(self.ids) if victim == "anything" else set(self.ids) - set(spared)
        assert len(hit) <= 1, f"{self.said}{victim}: {[ends[id].exit for id in hit]}"
        assert set(hit) <= allowed, f"{self.said}{victim}: {[ends[id].exit for id in hit]}"
        for id in self.ids:
            self._judge(ends[id], was_hit=id in hit)
            field.client.process_forget(process=id)
        wait_until(lambda: not living(self.mark), f"{self.said}orphans of {victim}: {living(self.mark)}")
        return victim

    def _kill(self, victim: str, chosen: str) -> None:
        if victim == "coworkd":
            self.field.kill_coworkd()
            return
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended by itself
            os.kill(self._find(victim, chosen), signal.SIGKILL)

    def _find(self, victim: str, chosen: str) -> int:
        if victim == "egress":
            return self.field.client.egress_status().pid or self._nobody()
        if victim == "anything":
            return self.dice.choice(self.field.below_launcher() or [self._nobody()])
        pid = self.field.client.process_get(process=chosen).pid
        if not pid:
            self._nobody()
        assert pid
        for _ in range(("command", "init", "monitor").index(victim)):
            pid = parent_of(pid)
        return pid if pid not in (1, self.field.launcher) else self._nobody()

    def _nobody(self) -> int:
        raise ProcessLookupError

    def _judge(self, end: ExitRecord, *, was_hit: bool) -> None:
        output = self.field.client.attach(end.process, stdout=0, stderr=0)
        said = b"".join(piece.data for piece in output if piece.stream == "stdout")
        if was_hit:
            assert WHOLE.startswith(said), f"{self.said}{end.process} said what it never did"
            assert (end.exit.signal, end.exit.code) in (("KILL", None), (None, 137)), f"{self.said}{end}"
        else:
            assert said == WHOLE, f"{self.said}{end.process} said {len(said)} of {len(WHOLE)} bytes"
            assert end.output == "complete", f"{self.said}{end}"


def ends_in_the_log(daemon: Daemon) -> tuple[Counter[str], Counter[str]]:
    """How often each process starts, and how often it ends."""
    starts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for path in sorted((daemon.state / ".coworkd" / "audit").glob("audit-*.jsonl")):
        for record in map(json.loads, path.read_bytes().splitlines()):
            if record["kind"] == "process.start":
                starts[record["process"]] += 1
            elif record["kind"] in ("process.exit", "process.start_failed"):
                ends[record["process"]] += 1
    return starts, ends


def test_kill_rounds_lose_no_end_and_leave_nothing(field: Field) -> None:
    Round(field, 0).play()
    field.client.session_delete(session="field", force=True)  # so that nothing is built ahead for its next command
    before = field.books.look_when_steady()
    field.client.session_ensure(name="field")
    field.begin()
    victims = Counter(Round(field, number).play() for number in range(1, ROUNDS + 1))
    field.stop()
    assert field.failures == []
    assert field.one_shots
    assert len(victims) > 1
    client = field.client
    assert client.info().launcher_pid == field.launcher
    wait_until(lambda: client.process_list().processes == (), f"left: {client.process_list().processes}")
    starts, ends = ends_in_the_log(field.daemon)
    lost = set(starts) - set(ends)
    assert not lost, f"{len(lost)} of {len(starts)} starts have no end in the log: {sorted(lost)[:10]}"
    # One that is killed between a record and the next thing it does has to make sure, and records it again.
    twice = {id for id in ends if ends[id] > 1}
    assert len(twice) <= victims["coworkd"], f"{sorted(twice)} ended more than once"
    assert client.audit_verify().ok
    client.session_delete(session="field", force=True)
    # Which coworkd has started it, and whether that was killed since, decides whether it is below the one that is there now.
    field.books.assert_settles(before, passing_over=("processes: coworkd-egress",))
