"""Sessions and processes of a real coworkd against a model: any order of calls, links that are cut, coworkd killed in between.

The model knows for each session whether it is there and what is mounted in it, and for each process what it has said, whether it runs, and
how it may have ended. It is exact where the kernel is: a command that was told to end and may have ended by itself has two ends.

A failing run prints its steps as a program. They are not made shorter: each costs a real sandbox.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import structs

from coworkd.model.errors import DeadlineExceeded, InvalidState, NotFound, OutOfRange, StartFailed
from coworkd.model.process import Exit
from tests.fuzz.budget import play
from tests.root.conftest import running_daemon
from tests.root.live import client_of, exited
from tests.soak.keeper import Keeper

pytestmark = pytest.mark.needs("bubblewrap")
SHARE = 0.2
TURN = 2
"""Examples in a round: the first of each run of hypothesis is the shortest there is."""
STEPS = 40
SIGNALS = {"TERM": 15, "KILL": 9, "USR1": 10}
KILLED = Exit(code=None, signal="KILL", reason="killed")
WAIT_S = 60.0
_numbers = itertools.count(1)


class Command:
    """What is known of one process."""

    def __init__(self, id: str, session: str, kind: str, said: bytes = b"") -> None:
        self.id = id
        self.session = session
        self.kind = kind
        self.said = said
        self.closed = False
        self.ends: list[Exit] = []
        """How it may end, once something ends it; empty while it runs for ever."""
        self.known: Exit | None = None

    @property
    def runs(self) -> bool:
        """For sure."""
        return not self.ends


class Machine(RuleBasedStateMachine):
    """Over one coworkd for all examples: `keeper` and `directory` are set before."""

    keeper: ClassVar[Keeper]
    directory: ClassVar[Path]
    sessions = Bundle("sessions")
    commands = Bundle("commands")

    @initialize()
    def begin(self) -> None:
        self.client = client_of(self.keeper.daemon)
        self.there: dict[str, bool] = {}
        self.mounted: set[str] = set()
        self.known: dict[str, Command] = {}
        self.kills = 0

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        for name, there in self.there.items():
            if there:
                self.client.session_delete(session=name, force=True)
        for id in self.known:
            self.client.process_forget(process=id)
        self.client.close()

    # -- sessions

    @rule(target=sessions)
    def make_session(self) -> str:
        name = f"model-{next(_numbers)}"
        assert self.client.session_ensure(name=name).created
        self.there[name] = True
        return name

    @rule(name=sessions)
    def ensure(self, name: str) -> None:
        assert self.client.session_ensure(name=name).created is not self.there[name]
        self.there[name] = True

    @rule(name=sessions, force=st.booleans())
    def delete(self, name: str, force: bool) -> None:
        living = [each for each in self.known.values() if each.session == name and each.known is None]
        delete = partial(self.client.session_delete, session=name, force=force)
        if not self.there[name]:
            with pytest.raises(NotFound):
                delete()
        elif not force and any(each.runs for each in living):
            with pytest.raises(InvalidState):
                delete()
        elif force or not living:
            delete()
            self.there[name] = False
            self.mounted.discard(name)
            for each in living:
                each.ends.append(KILLED)

    @rule(name=sessions)
    def mount(self, name: str) -> None:
        if self.there[name] and name not in self.mounted:
            self.client.folder_mount(session=name, name="shown", source=str(self.directory), mode="ro")
            self.mounted.add(name)

    @rule(name=sessions)
    def unmount(self, name: str) -> None:
        if name in self.mounted:
            self.client.folder_unmount(session=name, name="shown")
            self.mounted.discard(name)

    @rule(name=sessions)
    def look_into_folder(self, name: str) -> None:
        if self.there[name]:
            ran = self.client.run(name, ["cat", f"/sessions/{name}/mnt/shown/file"])
            assert ran.stdout == (b"shown\n" if name in self.mounted else b"")

    # -- commands

    @rule(name=sessions, data=st.binary(max_size=200))
    def run_cat(self, name: str, data: bytes) -> None:
        if not self.there[name]:
            with pytest.raises(NotFound):
                self.client.run(name, ["cat"], input=data)
            return
        ran = self.client.run(name, ["cat"], input=data)
        assert (ran.exit, ran.stdout) == (exited(0), data)

    @rule(name=sessions)
    def start_nothing(self, name: str) -> None:
        if self.there[name]:
            with pytest.raises(StartFailed):
                self.client.start(name, ["no-such-command"])

    @rule(
        target=commands, name=sessions, kind=st.sampled_from(["cat", "sleep", "tty", "says"]), code=st.integers(0, 99)
    )
    def start(self, name: str, kind: str, code: int) -> Any:
        id = f"m{next(_numbers)}"
        fields: dict[str, Any] = {"id": id, "attach": False, "stdin": kind == "cat"}
        if kind == "tty":
            fields["tty"] = (24, 80)
        argv = {"cat": ["cat"], "says": ["sh", "-c", f"printf %s {code}; exit {code}"]}.get(kind, ["sleep", "1000"])
        if not self.there[name]:
            with pytest.raises(NotFound):
                self.client.start(name, argv, **fields)
            return multiple()
        self.client.start(name, argv, **fields)
        made = Command(id, name, kind)
        if kind == "says":
            made.said = str(code).encode()
            made.ends.append(exited(code))
        self.known[id] = made
        return made

    @rule(command=commands, data=st.binary(min_size=1, max_size=3000))
    def write(self, command: Command, data: bytes) -> None:
        write = partial(self.client.process_write_stdin, process=command.id, offset=len(command.said), data=data)
        if command.kind != "cat" or command.closed or not command.runs:
            return
        taken = write().offset - len(command.said)
        assert 0 <= taken <= len(data)
        command.said += data[:taken]

    @rule(command=commands)
    def close(self, command: Command) -> None:
        if command.kind == "cat" and command.runs:
            self.client.process_close_stdin(process=command.id)
            command.closed = True
            command.ends.append(exited(0))

    @rule(command=commands, name=st.sampled_from([*SIGNALS, "CONT"]))
    def signal(self, command: Command, name: str) -> None:
        if command.runs:
            self.client.process_signal(process=command.id, signal=name)
            if name in SIGNALS:
                command.ends.append(Exit(code=None, signal=name, reason="signaled"))
        elif command.known is not None:
            with pytest.raises(InvalidState):
                self.client.process_signal(process=command.id, signal=name)

    @rule(command=commands)
    def kill(self, command: Command) -> None:
        self.client.process_kill(process=command.id, grace_s=0)
        if command.known is None:
            command.ends.append(KILLED)

    @rule(command=commands)
    def wait(self, command: Command) -> None:
        if command.runs:
            with pytest.raises(DeadlineExceeded):
                self.client.process_wait(process=command.id, timeout_s=0)
            return
        ended = self.client.process_wait(process=command.id, timeout_s=WAIT_S)
        found = structs.replace(ended.exit, inferred=False)
        allowed = command.ends if command.known is None else [command.known]
        # A command that dies of a signal of ours just as it is killed is told as killed, by either.
        if found.reason == "killed" and KILLED in allowed:
            allowed = [*allowed, found]
        assert found in allowed, (found, allowed)
        command.known = found

    @rule(command=commands, part=st.floats(0, 1))
    def attach(self, command: Command, part: float) -> None:
        """From any offset on, all there is comes, and nothing else."""
        if command.kind == "tty":
            return
        if command.known is None and not command.runs:
            self.wait(command)
        offset = int(len(command.said) * part)
        if not command.runs:
            # What it had not read when it was ended, it never said.
            end = self.client.process_get(process=command.id).exit
            assert end is not None
            total = end.bytes["stdout"]
            if offset > total:
                with pytest.raises(OutOfRange):
                    self.client.attach(command.id, stdout=offset)
                return
        else:
            total = len(command.said)
        process = self.client.attach(command.id, stdout=offset)
        said = b""
        while len(said) < total - offset:
            piece = process.read(timeout_s=WAIT_S)
            assert piece is not None
            said += piece.data if piece.stream == "stdout" else b""
        assert said == command.said[offset:total]
        process.detach()

    @rule(command=commands, rows=st.integers(1, 200), cols=st.integers(1, 200))
    def resize(self, command: Command, rows: int, cols: int) -> None:
        resize = partial(self.client.process_resize, process=command.id, rows=rows, cols=cols)
        if command.kind != "tty":
            with pytest.raises(InvalidState):
                resize()
        elif command.runs:
            resize()

    @rule(command=commands)
    def forget_early(self, command: Command) -> None:
        if command.runs:
            with pytest.raises(InvalidState):
                self.client.process_forget(process=command.id)

    @rule(command=consumes(commands))
    def forget(self, command: Command) -> None:
        if command.runs:
            self.kill(command)
        self.wait(command)
        self.client.process_forget(process=command.id)
        del self.known[command.id]
        for call in (self.client.process_get, self.client.process_forget):
            with pytest.raises(NotFound):
                call(process=command.id)

    # -- faults

    @rule()
    def cut_link(self) -> None:
        self.client.close()
        self.client = client_of(self.keeper.daemon)

    @precondition(lambda self: self.kills == 0 and self.known)
    @rule()
    def kill_coworkd(self) -> None:
        self.kills += 1
        self.client.close()
        self.keeper.kill_and_start_blocking()
        self.client = client_of(self.keeper.daemon)

    # -- always

    @invariant()
    def lists_agree(self) -> None:
        if not hasattr(self, "client"):
            return
        ours = {each.name for each in self.client.session_list().sessions if each.name.startswith("model-")}
        assert ours == {name for name, there in self.there.items() if there}
        listed = {each.process: each for each in self.client.process_list().processes}
        assert set(listed) == set(self.known)
        for id, command in self.known.items():
            if command.runs:
                assert (listed[id].state, listed[id].session) == ("running", command.session)
            elif command.known is not None:
                assert listed[id].state == "exited"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Machine]]:
    directory = tmp_path_factory.mktemp("model")
    (directory / "shown").mkdir()
    (directory / "shown" / "file").write_text("shown\n")
    with Keeper(partial(running_daemon, directory / "coworkd")) as keeper:
        Machine.keeper, Machine.directory = keeper, directory / "shown"
        yield Machine


def test_any_order_of_calls_agrees_with_the_model(machine: type[Machine]) -> None:
    def one_round(chance: random.Random) -> None:
        run_state_machine_as_test(
            seed(chance.getrandbits(64))(machine),
            settings=settings(
                max_examples=TURN,
                stateful_step_count=STEPS,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                print_blob=True,
                database=None,
            ),
        )

    play(SHARE, one_round)
    with client_of(machine.keeper.daemon) as client:
        assert client.audit_verify().ok
        assert client.process_list().processes == ()
