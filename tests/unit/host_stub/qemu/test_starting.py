from __future__ import annotations

from pathlib import Path

import pytest
import trio

from host_stub.qemu.command import Parts
from host_stub.qemu.running import QemuMachine
from host_stub.qemu.starting import own_machine, start_qemu, trouble_of
from host_stub.words import Ended, Trouble
from tests.unit.host_stub.qemu.test_command import parts_of, spec_of

FALLBACK = Trouble("qemu_gone", "QEMU has closed its control link", remedy="look")
QEMU = """#!/bin/sh
# A stand-in that takes its control link's descriptor from its arguments, as QEMU does, and does what the test says.
for word; do case $word in socket,id=qmp,fd=*) fd=${word##*=} ;; esac; done
exec python3 -c 'import json, os, socket, sys
link = socket.socket(fileno=int(sys.argv[1])).makefile("rw")
def say(**words): link.write(json.dumps(words) + "\\n"); link.flush()
def answer(): say(id=json.loads(link.readline())["id"], **{"return": {}})
def greet(): say(QMP={"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}}); answer()
%s' "$fd"
"""


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('Failed to get "write" lock\nIs another process using the image [/b/x]?', "disk_in_use"),
        ("qemu: cannot set up guest memory 'memory': Cannot allocate memory", "no_memory"),
        ("Could not access KVM kernel module: Permission denied", "no_accelerator"),
        ("qemu: -chardev socket: Failed to bind: Address already in use", "socket_taken"),
        ("could not write: No space left on device", "no_space"),
        ("qemu: something new", "qemu_failed"),
        ("", "qemu_gone"),
    ],
)
def test_qemus_last_words_become_a_trouble(said: str, code: str) -> None:
    assert trouble_of(said, FALLBACK).code == code


def life_of(tmp_path: Path, script: str) -> Ended:
    """A machine whose QEMU is that script, from its start to its end."""
    program = tmp_path / "qemu"
    program.write_text(QEMU % script)
    program.chmod(0o755)
    ended: list[Ended] = []

    async def bring_up(nursery: trio.Nursery) -> QemuMachine:
        def compose(fd: int) -> Parts:
            return parts_of(program=program, qmp_fd=fd)

        return await start_qemu(spec_of(serial_log=tmp_path / "serial.log"), compose, nursery)

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                machine: QemuMachine = await nursery.start(own_machine, bring_up)
                ended.append(await machine.wait())

    trio.run(main)
    return ended[0]


def test_a_guest_that_powers_off_is_told_so(tmp_path: Path) -> None:
    ended = life_of(tmp_path, 'greet(); answer(); say(event="SHUTDOWN", data={"reason": "guest-shutdown"})')
    assert (ended.how, ended.exit_status) == ("powered_off", 0)


def test_a_qemu_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    ended = life_of(tmp_path, 'greet(); answer(); print("out of luck", flush=True); sys.exit(4)')
    assert (ended.how, ended.exit_status) == ("failed", 4)
    assert "out of luck" in ended.message


def test_a_panic_is_told_by_the_devices_word(tmp_path: Path) -> None:
    said = 'say(event="GUEST_PANICKED"); say(event="SHUTDOWN", data={"reason": "guest-panic"})'
    assert life_of(tmp_path, f"greet(); answer(); {said}").how == "panicked"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ('print("Cannot allocate memory", flush=True); sys.exit(1)', "no_memory"),
        ('greet(); print("Failed to get \\"write\\" lock", flush=True); sys.exit(1)', "disk_in_use"),
        ("greet(); sys.exit(1)", "qemu_gone"),
    ],
)
def test_a_qemu_that_does_not_start_is_a_trouble_by_itself(tmp_path: Path, script: str, code: str) -> None:
    with pytest.raises(BaseException) as caught:
        life_of(tmp_path, script)
    error = caught.value
    while not isinstance(error, Trouble):
        (error,) = error.exceptions  # type: ignore[attr-defined]  # of the test's own nursery
    assert error.code == code


def test_cancelling_its_owner_kills_it(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text(QEMU % "greet(); answer(); import time; time.sleep(300)")
    program.chmod(0o755)
    machines: list[QemuMachine] = []

    async def bring_up(nursery: trio.Nursery) -> QemuMachine:
        return await start_qemu(spec_of(), lambda fd: parts_of(program=program, qmp_fd=fd), nursery)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            machines.append(await nursery.start(own_machine, bring_up))
            nursery.cancel_scope.cancel()
        assert (await machines[0].wait()).how == "killed"

    trio.run(main)
