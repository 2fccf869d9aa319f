"""`coworkctl egress …`, `policy set`, `session policy` and `doctor` against a real coworkd in the lab."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.client.sync import connect
from tests.root.egress_room import PROFILE, Room, compose_settings, connect_head, open_room, saying
from tests.root.live import wait_until
from tests.root.servers import dns

pytestmark = [pytest.mark.root, pytest.mark.needs("netns")]

ECHO = 7
INDEX = f"index.{dns.DOMAIN}"
UNLISTED = f"unlisted.{dns.DOMAIN}"
SESSION = "work"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with open_room(tmp_path_factory.mktemp("commands")) as made, made.session(SESSION):
        yield made


def ctl(room: Room, *words: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-m", "coworkd.cli.control", "--to", room.daemon.uri, *words)
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def told(room: Room, *words: str) -> Any:
    done = ctl(room, "--json", *words)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_check_has_its_status_and_names_the_rule(room: Room) -> None:
    allowed = ctl(room, "egress", "check", INDEX.upper(), "--session", SESSION)
    assert (allowed.returncode, allowed.stdout.split()[:2]) == (0, ["allowed", f"{INDEX}:443"])
    assert f"egress/{PROFILE}.json" in allowed.stdout
    refused = ctl(room, "egress", "check", UNLISTED, "--profile", PROFILE)
    assert (refused.returncode, refused.stdout.split()[0]) == (1, "REFUSED")
    assert ctl(room, "egress", "check", INDEX, "--profile", "strict").returncode == 1


def test_log_and_status_tell_what_happened(room: Room) -> None:
    room.talk(SESSION, [saying(connect_head(INDEX, ECHO), b"x", enough=40), saying(connect_head(UNLISTED))])
    wait_until(lambda: {"open", "refused"} <= {record.kind for record in room.log(SESSION)}, "both records")
    lines = ctl(room, "egress", "log", "--session", SESSION).stdout.splitlines()
    assert any(re.search(rf"allowed connect {re.escape(INDEX)}:{ECHO} by .*{PROFILE}\.json", line) for line in lines)
    refused = ctl(room, "egress", "log", "--session", SESSION, "--refused").stdout.splitlines()
    assert refused
    assert all("REFUSED connect" in line for line in refused)
    [counts] = [one for one in told(room, "egress", "status")["sessions"] if one["session"] == SESSION]
    assert counts["connections_total"] >= 1
    assert counts["refused_total"] >= 1


def test_log_follows(room: Room) -> None:
    argv = (sys.executable, "-m", "coworkd.cli.control", "--to", room.daemon.uri, "--json")
    words = ("egress", "log", "--session", SESSION, "-f", "-n", "1")
    with subprocess.Popen((*argv, *words), stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            json.loads(following.stdout.readline())
            host = f"followed.{dns.DOMAIN}"
            room.talk(SESSION, [saying(connect_head(host))])
            for line in following.stdout:
                if json.loads(line)["host"] == host:
                    break
        finally:
            following.kill()


def test_allow_holds_for_a_while(room: Room) -> None:
    host = f"temporary.{dns.DOMAIN}"
    assert ctl(room, "egress", "check", host, "--session", SESSION).returncode == 1
    allowed = ctl(room, "egress", "allow", SESSION, host, "--for", "10m")
    assert "is allowed for work until" in allowed.stdout
    assert ctl(room, "egress", "check", host, "--session", SESSION).returncode == 0
    assert host in ctl(room, "session", "policy", SESSION).stdout
    too_long = ctl(room, "egress", "allow", SESSION, host, "--for", "2h")
    assert (too_long.returncode, "PERMISSION_DENIED" in too_long.stderr) == (1, True)


def test_policy_set_narrows_one_session(room: Room, tmp_path: Path) -> None:
    file = tmp_path / "only.json"
    settings = compose_settings()
    settings["network"]["allowedDomains"] = [f"six.{dns.DOMAIN}", UNLISTED]
    file.write_text(json.dumps(settings))
    with room.session("narrow"):
        done = ctl(room, "policy", "set", "narrow", "--egress", str(file))
        assert done.returncode == 0, done.stderr
        assert f"narrowed: egress: {UNLISTED} stays out" in done.stdout
        assert ctl(room, "egress", "check", INDEX, "--session", "narrow").returncode == 1
        layers = told(room, "session", "policy", "narrow")["egress"]
        assert [layer["allowed"] for layer in layers][1:] == [settings["network"]["allowedDomains"]]
        file.write_text('{"network": {"allowedDomains": ["*.com"]}}')
        bad = ctl(room, "policy", "set", "narrow", "--egress", str(file))
        assert (bad.returncode, "INVALID_ARGUMENT" in bad.stderr) == (1, True)


def test_doctor_looks_at_the_way_out(room: Room) -> None:
    findings = {finding["check"]: finding for finding in told(room, "doctor")["findings"]}
    assert findings["egress"]["state"] in ("ok", "degraded")
    assert findings["egress-walls"]["state"] == "ok"
    assert "presets" in findings
    assert findings["names"]["state"] == "ok"
    assert findings["upstream"]["state"] == "degraded"  # the lab leads nowhere


def test_network_status_is_an_event(room: Room) -> None:
    with connect(room.daemon.uri, client_name="status") as client:
        for event in client.events(after=0):
            if event.name == "network.status":
                break
    assert event.params["status"] == "NOT_CONNECTED"
    assert event.params["routes"] == []
    assert any(dns.GUEST in address for device in event.params["devices"] for address in device["addresses"])


@pytest.mark.parametrize(("host", "reached"), [(INDEX, True), (f"missing.{dns.DOMAIN}", False), ("203.0.113.9", False)])
def test_reachability_tries_the_way_a_connection_would_go(room: Room, host: str, reached: bool) -> None:
    code = (
        "import sys, trio; from coworkd.services.network_reach import reach\n"
        "async def main(): print(await reach(sys.argv[1], upstream='direct', host_uri=''))\n"
        "trio.run(main)"
    )
    argv = (*room.lab.guest.entering(), sys.executable, "-c", code, f"{host}:{ECHO}")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.strip() == "None") is reached, done.stdout
