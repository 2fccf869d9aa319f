"""cgroup v2 in the guest, below the unit of the launcher: limits hold, reasons are told, freezing freezes; and the units themselves."""

from __future__ import annotations

import time

from coworkd.model.policy import LimitsRequest
from tests.vm.guest_lab import MIB, Guest

EAT = "b = bytearray(160 << 20); b[::4096] = b'x' * len(b[::4096])"
FORK = """
import os, time
try:
    for number in range(99):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
except OSError as error:
    print(error.errno, flush=True)
os._exit(0)
"""
BURN = """
import time
while time.process_time() < 1:
    pass
"""
UNIT = "/sys/fs/cgroup$(systemctl show -P ControlGroup coworkd-launcher)"


def test_limits_hold_and_say_why_a_command_ended(guest: Guest) -> None:
    client = guest.connect()
    client.session_ensure(name="eats", limits=LimitsRequest(memory_max=96 * MIB, pids_max=24, cpu_max=0.25))
    assert client.run("eats", ["python3", "-c", FORK], timeout_s=240).stdout == b"11\n"
    assert client.run("eats", ["python3", "-c", BURN], timeout_s=240).exit.code == 0
    # By the kernel's own count: time on an emulated processor is not to be trusted beside other load.
    assert int(guest.shell.check(f"grep ^nr_throttled {UNIT}/sessions/s-eats/cpu.stat").split()[1]) > 5
    assert client.run("eats", ["python3", "-c", EAT], timeout_s=240).exit.reason == "oom"


def test_every_controller_is_there(guest: Guest) -> None:
    assert "cgroup" not in guest.connect().hello.degraded.get("launcher", "")
    assert {"memory", "pids", "cpu"} <= set(guest.shell.check(f"cat {UNIT}/cgroup.subtree_control").split())


def test_a_frozen_session_stands_still_and_can_be_killed(guest: Guest) -> None:
    client = guest.connect()
    client.session_ensure(name="ticks")
    process = client.start("ticks", ["sh", "-c", "while :; do date +%N; sleep 0.1; done"])
    assert process.read(timeout_s=240) is not None
    own = guest.shell.check(f"cut -d: -f3 /proc/{process.pid}/cgroup").strip()
    group = f"/sys/fs/cgroup{own}"
    frozen = f"until grep -q 'frozen 1' {group}/cgroup.events; do sleep 0.1; done"
    guest.shell.check(f"echo 1 >{group}/cgroup.freeze; {frozen}")
    time.sleep(0.5)
    before = client.process_get(process=process.id).streams["stdout"]
    time.sleep(1.0)
    assert client.process_get(process=process.id).streams["stdout"] == before
    process.kill()
    assert process.wait(timeout_s=240).exit.reason == "killed"


def test_no_unit_has_failed(guest: Guest) -> None:
    assert guest.shell.check("systemctl --failed --no-legend --plain") == ""
    wait = "for n in $(seq 600); do systemctl is-system-running --quiet && break; sleep 0.2; done"
    assert guest.shell.check(f"{wait}; systemctl is-system-running") == "running\n"


def test_the_three_programs_are_units_of_their_own(guest: Guest) -> None:
    states = guest.shell.check("systemctl is-active coworkd-launcher coworkd coworkd-egress").split()
    assert states == ["active"] * 3
    score = "cat /proc/$(systemctl show -P MainPID $unit)/oom_score_adj"
    assert guest.shell.check(f"for unit in coworkd coworkd-launcher; do {score}; done").split() == ["-1000"] * 2
