"""One keeper a bundle, and what the last one left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from host_stub.bundle import Bundle
from host_stub.keeper_lock import hold_lock, identify, is_held, read_record, settle_predecessor, write_record
from host_stub.keeper_words import Record
from host_stub.words import MachineState, Trouble


def record(state: MachineState = MachineState.READY, **fields: Any) -> Record:
    return Record(**{"state": state, "message": "m", "at": 1.0, "keeper_pid": 7, **fields})


@pytest.fixture
def machine() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_the_lock_is_had_once_and_given_back(bundle: Bundle) -> None:
    assert not is_held(bundle)
    with hold_lock(bundle):
        assert is_held(bundle)
        assert (bundle.run / "lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(Trouble) as caught, hold_lock(bundle):
            pass
        assert caught.value.code == "already_running"
        assert is_held(bundle)  # who was refused took nothing away
    assert not is_held(bundle)


def test_somebody_who_only_looks_keeps_no_keeper_out(bundle: Bundle) -> None:
    with contextlib.ExitStack() as looking:
        looking.enter_context(hold_lock(bundle))
        with hold_lock(bundle, sleep=lambda _: looking.close()):
            assert is_held(bundle)


def test_a_lock_that_is_a_link_is_not_followed(bundle: Bundle) -> None:
    (bundle.run / "lock").symlink_to("elsewhere")
    with pytest.raises(Trouble), hold_lock(bundle):
        pass
    assert not (bundle.run / "elsewhere").exists()


def test_a_record_is_read_again(bundle: Bundle) -> None:
    assert read_record(bundle) is None
    write_record(bundle, record(details={"serial": ["x"]}))
    assert read_record(bundle) == record(details={"serial": ["x"]})
    for damaged in (b"{", b'{"version": "\x80", "message": "\x80"}'):
        (bundle.state / "last.json").write_bytes(damaged)
        assert read_record(bundle) is None


@pytest.mark.parametrize("state", [MachineState.STOPPED, MachineState.CRASHED])
def test_a_life_that_ended_leaves_nothing_to_settle(bundle: Bundle, state: MachineState) -> None:
    write_record(bundle, record(state))
    assert settle_predecessor(bundle) is None


def test_a_machine_that_ended_with_its_keeper_is_told(bundle: Bundle) -> None:
    write_record(bundle, record())
    said = settle_predecessor(bundle)
    assert said == "the last keeper (process 7) was killed while the machine was ready; the machine ended with it"


def test_a_machine_that_ran_on_is_ended_and_told(bundle: Bundle, machine: subprocess.Popen[bytes]) -> None:
    write_record(bundle, record(machine_pid=machine.pid, machine_created=identify(machine.pid)))
    said = settle_predecessor(bundle, grace_s=0)
    assert said is not None
    assert "ran on, and was ended now" in said
    assert not psutil.pid_exists(machine.pid) or machine.poll() is not None


def test_a_later_process_of_the_same_number_is_left_alone(bundle: Bundle, machine: subprocess.Popen[bytes]) -> None:
    created = identify(machine.pid)
    assert created is not None
    write_record(bundle, record(machine_pid=machine.pid, machine_created=created - 100))
    said = settle_predecessor(bundle, grace_s=0)
    assert said is not None
    assert "ended with it" in said
    assert machine.poll() is None


def test_a_process_that_is_gone_has_no_time() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert identify(process.pid) is None
