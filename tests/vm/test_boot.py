"""How a guest comes up, is watched over, and ends: units, stages, times, the watchdog, the clock, a shutdown within its budget."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest
import trio

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError
from coworkd.wire.endpoint import HybridEndpoint
from host_stub.guest_health import look
from host_stub.qemu.running import QemuMachine
from host_stub.words import HEALTH_PORT
from tests.root.live import busyness
from tests.vm.guest_lab import Guest

BUDGET_S = 15.0


def test_no_unit_has_failed_and_systemd_knows_every_word_of_ours(guest: Guest, client: Client) -> None:
    assert guest.shell.check("systemctl --failed --no-legend --plain") == ""
    journal = guest.shell.check("journalctl -b --no-pager -o cat")
    assert [line for line in journal.splitlines() if "coworkd" in line and "Unknown" in line] == []


def test_hello_tells_the_stages_in_order_and_boot_time_where_the_time_went(guest: Guest, client: Client) -> None:
    names = [stage.name for stage in client.hello.stages]
    assert names[:3] == ["listen", "launcher", "storage"]
    told = client.boot_time()
    assert told.notes == ()
    assert told.ready_s is not None
    groups = {step.group for step in told.steps}
    assert {"kernel", "system", "unit", "coworkd"} <= groups
    listen = next(step for step in told.steps if step.name == "listen")
    assert 0 < listen.start_s < told.ready_s
    assert max(step.start_s for step in told.steps) < told.ready_s + 60


def inside(guest: Guest, *, within_s: float = 20.0) -> str:
    """What the guest's health port says to this host."""
    return trio.run(partial(look, HybridEndpoint(path=str(guest.spec.vsock), port=HEALTH_PORT), within_s=within_s))


_ASK_SOCKET = """python3 - <<'END'
import socket
client = socket.socket(socket.AF_UNIX)
client.connect("/run/coworkd/health.sock")
client.sendall(b"GET /ready HTTP/1.0\\r\\n\\r\\n")
print(client.recv(65536).decode())
END"""
_DIAL_OWN = """python3 - <<'END'
import socket
client = socket.socket(socket.AF_VSOCK)
client.settimeout(10)
try:
    client.connect((1, 5008))
    client.sendall(b"GET /live HTTP/1.0\\r\\n\\r\\n")
    print("said", client.recv(100))
except OSError:
    print("said nothing")
END"""


def test_the_health_port_is_the_hosts_alone(guest: Guest, client: Client) -> None:
    """A guest that dials itself (CID 1, vsock(7)) is closed without a byte."""
    assert guest.shell.check("stat -c %a /run/coworkd/health.sock").strip() == "600"
    assert '"ready":true' in guest.shell.check(_ASK_SOCKET)
    assert guest.shell.check(_DIAL_OWN).strip() in ("said b''", "said nothing")
    assert inside(guest).startswith("coworkd lives")


def test_a_coworkd_that_hangs_is_started_anew_and_the_command_lives_on(guest: Guest, client: Client) -> None:
    client.session_ensure(name="watched")
    started = client.start("watched", ["sh", "-c", "sleep 3000"], attach=False)
    pid = guest.shell.check("systemctl show -P MainPID coworkd.service").strip()
    assert inside(guest).startswith("coworkd lives")
    guest.shell.check(f"kill -STOP {pid}")
    assert inside(guest, within_s=5.0).startswith("nothing is said")
    deadline = time.monotonic() + 300
    while guest.shell.check("systemctl show -P MainPID coworkd.service").strip() in (pid, "0"):
        assert time.monotonic() < deadline, "the watchdog has not bitten"
        time.sleep(1)
    again = guest.connect()
    assert again.info().pid != int(pid)
    assert inside(guest).startswith("coworkd lives")
    assert [process.state for process in again.process_list().processes] == ["running"], started
    again.session_delete(session="watched", force=True)


def test_limits_are_real_below_a_delegated_cgroup(guest: Guest, client: Client) -> None:
    own = "/sys/fs/cgroup/coworkd.slice/coworkd-launcher.service"
    for place in (own, f"{own}/sessions"):
        assert {"memory", "pids", "cpu"} <= set(guest.shell.check(f"cat {place}/cgroup.subtree_control").split())
    assert guest.shell.check(f"cat {own}/cgroup.procs") == ""
    assert len(guest.shell.check(f"cat {own}/supervisor/cgroup.procs").split()) >= 2
    assert int(guest.shell.check("cat /sys/fs/cgroup/coworkd.slice/memory.min")) > 0
    pid = guest.shell.check("systemctl show -P MainPID coworkd.service").strip()
    assert guest.shell.check(f"cat /proc/{pid}/oom_score_adj").strip() == "-1000"


def steps_of(client: Client) -> int:
    return [record["kind"] for record in client.audit_tail(limit=200).records].count("clock.step")


def test_the_clock_goes_forward_to_the_hosts_and_never_back(client: Client) -> None:
    before = steps_of(client)  # a clone's clock was stepped already, from its template's time
    ahead = time.time() + 5000.0
    assert client.sync_clock(time=ahead).stepped
    assert client.ping().time == pytest.approx(ahead, abs=10.0)
    refused = client.sync_clock(time=ahead - 3000.0)
    assert not refused.stepped
    assert "never set back" in refused.reason
    assert steps_of(client) == before + 1


def test_the_clock_keeps_up_though_the_host_leaves_the_guest_waiting(guest: Guest, client: Client) -> None:
    """For longer than half a round of the ACPI timer, see `guest_lab.EMULATED_X86_WORDS`."""
    assert isinstance(guest.machine, QemuMachine)
    pid = guest.machine.pid
    before, since = uptime_s(guest), time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(3)
    finally:
        os.kill(pid, signal.SIGCONT)
    waited = time.monotonic() - since
    assert uptime_s(guest) - before > waited - 0.5


def uptime_s(guest: Guest) -> float:
    return float(guest.shell.check("cat /proc/uptime").split()[0])


def test_a_shutdown_ends_the_machine_within_its_budget_and_the_disk_is_clean(guest: Guest, client: Client) -> None:
    client.session_ensure(name="last")
    client.start("last", ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], attach=False)
    began = time.monotonic()
    client.shutdown(power_off=True, budget_s=BUDGET_S, reason="the test is over")
    ended = guest.ended()
    took_s = time.monotonic() - began
    assert ended.how == "powered_off"
    print(f"off after {took_s:.1f} s")
    assert took_s < (BUDGET_S + 10.0) * busyness()
    with pytest.raises(CoworkError):
        client.ping()
