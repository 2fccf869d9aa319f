"""Bad neighbours in the guest: each harms itself alone, coworkd answers, and the reasons are told. How fast it answers tests/bench/abuse.py
shows.
"""

from __future__ import annotations

import time

import pytest

from coworkd.client.sync import Client
from coworkd.model.policy import LimitsRequest
from tests.vm import abuse
from tests.vm.abuse import MIB, WAYS, abused, ping_times
from tests.vm.guest_lab import Guest

PIDS = "systemctl show -P MainPID coworkd coworkd-launcher coworkd-egress"
GLOBAL_KILLS = "dmesg | grep -c '] Out of memory: Killed' || true"
UNIT = "/sys/fs/cgroup$(systemctl show -P ControlGroup coworkd-launcher)"
HOLD = "b = bytearray({mib} << 20); b[::4096] = b'x' * len(b[::4096]); print('holds', flush=True); import time; time.sleep(1000)"


def test_coworkd_answers_whatever_a_session_does(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abuse, "FLOODS", 12)
    client = guest.connect()
    client.session_ensure(name="calm")
    calm = client.start("calm", ["sleep", "1000"], attach=False)
    before = guest.shell.check(PIDS).split()
    for way in WAYS:
        with abused(client, way):
            assert len(ping_times(client, 5)) == 5, way
            assert client.run("calm", ["true"], timeout_s=120).exit.code == 0, way
    assert guest.shell.check(PIDS).split() == before
    assert client.process_get(process=calm.id).state == "running"
    assert guest.shell.check(GLOBAL_KILLS).strip() == "0"
    assert [session.name for session in client.session_list().sessions] == ["calm"]


def test_all_sessions_together_leave_the_guest_its_part(guest: Guest) -> None:
    client = guest.connect()
    before = guest.shell.check(PIDS).split()
    cap = int(guest.shell.check(f"cat {UNIT}/sessions/memory.max"))
    assert any("memory_max" in told for told in client.session_ensure(name="one").narrowed)
    client.session_ensure(name="two")
    first = client.start("one", ["python3", "-c", HOLD.format(mib=cap // MIB // 2)])
    assert first.read(timeout_s=120) is not None
    end = client.run("two", ["python3", "-c", HOLD.format(mib=cap // MIB)], timeout_s=120).exit
    ends = [end, *([first.wait(timeout_s=60).exit] if end.reason != "oom" else [])]
    assert ("oom", "guest", cap) in [(each.reason, each.scope, each.limit_bytes) for each in ends]
    assert guest.shell.check(PIDS).split() == before
    assert guest.shell.check(GLOBAL_KILLS).strip() == "0"
    assert client.ping().time > 0


def test_a_session_at_its_limit_leaves_the_rest(guest: Guest) -> None:
    client = guest.connect()
    client.session_ensure(name="rest")
    rest = client.start("rest", ["sleep", "1000"], attach=False)
    client.session_ensure(name="eats", limits=LimitsRequest(memory_max=96 * MIB))
    beside = client.start("eats", ["sleep", "1000"], attach=False)
    end = client.run("eats", ["python3", "-c", HOLD.format(mib=160)], timeout_s=120).exit
    assert (end.reason, end.scope, end.limit_bytes) == ("oom", "session", 96 * MIB)
    assert [client.process_get(process=each.id).state for each in (rest, beside)] == ["running", "running"]


def test_pressure_is_told_and_its_end(guest: Guest) -> None:
    client = guest.connect()
    assert "pressure" not in client.hello.degraded
    client.session_ensure(name="slow")
    burner = client.start("slow", ["sh", "-c", "while :; do :; done"], attach=False)
    client.session_set_limits(session="slow", limits=LimitsRequest(cpu_max=0.1))
    levels = _levels(client, "slow", until="some", or_until="full")
    burner.kill(grace_s=0)
    assert levels[-1] in ("some", "full")
    assert _levels(client, "slow", until="none")[-1] == "none"


def test_who_serves_comes_first(guest: Guest) -> None:
    slice_, own = "/sys/fs/cgroup/coworkd.slice", f"{UNIT}/supervisor"
    names = (f"{slice_}/cpu.weight", f"{slice_}/memory.min", f"{own}/cpu.weight", f"{own}/memory.min")
    assert [int(guest.shell.check(f"cat {name}")) for name in names] == [1000, 192 * MIB, 10_000, 48 * MIB]


def _levels(client: Client, session: str, *, until: str, or_until: str = "", timeout_s: float = 120.0) -> list[str]:
    """Those of its processor pressure, up to the one that is waited for."""
    events, deadline, told = client.events(after=0), time.monotonic() + timeout_s, list[str]()
    try:
        while time.monotonic() < deadline and (not told or told[-1] not in (until, or_until)):
            event = events.read(timeout_s=1.0)
            if event is not None and event.name == "session.pressure" and event.params["session"] == session:
                told += [event.params["level"]] if event.params["kind"] == "cpu" else []
    finally:
        events.close()
    assert told, f"no pressure of {session} within {timeout_s:g} s"
    return told
