"""coworkd-egress for real: its walls, its names, two thousand tunnels, stalls, and its ends; in a lab with nothing behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.root.egressd_talk import UID
from tests.root.lab import Lab, open_lab
from tests.root.servers import dns

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "netns", "mountns")]

_MIB = 1024 * 1024


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab")) as opened:
        yield opened


def play(lab: Lab, scenario: str) -> dict[str, Any]:
    command = [*lab.guest.entering(), sys.executable, "-m", "tests.root.egressd_talk", scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_serves_as_its_own_user_behind_its_walls(lab: Lab) -> None:
    found = play(lab, "walls")
    assert found["Uid"] == found["Gid"] == [str(UID)] * 4
    assert found["Groups"] == []
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == ["0" * 16]
    assert (found["NoNewPrivs"], found["Seccomp"]) == (["1"], ["2"])
    assert found["Name"] == ["coworkd-egress"]


def test_names_are_resolved_and_judged(lab: Lab) -> None:
    found = play(lab, "reach")
    good = {f"{name}.{dns.DOMAIN}" for name in dns.GOOD}
    bad = {f"{name}.{dns.DOMAIN}" for name in dns.BAD}
    assert {host: found[host] for host in good} == dict.fromkeys(good, 200)
    assert {host: found[host] for host in bad} == dict.fromkeys(bad, 403)
    assert found[f"missing.{dns.DOMAIN}"] == 502
    assert (found[dns.SERVER], found[f"[{dns.SERVER6}]"]) == (200, 200)
    assert (found["127.1"], found[dns.GUEST]) == (403, 403)


def costs_no_more(found: dict[str, Any]) -> bool:
    """By CPU time: the rate is also that of everything else that runs on this machine."""
    print(found["alone"], found["beside"])
    return bool(found["beside"]["cpu_s"] < 1.5 * found["alone"]["cpu_s"] + 0.1)


def test_two_thousand_tunnels_cost_little_and_leave_nothing(lab: Lab) -> None:
    found = play(lab, "many")
    assert found["memory_200"] <= 12 * _MIB, found
    assert found["memory_2000"] <= 2000 * 40 * 1024, found
    assert found["children"] == 0
    assert found["threads"] == 0
    assert found["descriptors_left"] == 0, found
    assert found["idle_s"] < 0.2, found
    assert costs_no_more(found)


def test_stalled_tunnels_take_no_time_and_no_others_rate(lab: Lab) -> None:
    found = play(lab, "stalled")
    assert found["idle_s"] < 0.2, found
    assert costs_no_more(found)
    assert found["descriptors"] < 2 * 300 + 40, found


def test_without_a_supervisor_tunnels_flow_and_new_ones_wait(lab: Lab) -> None:
    found = play(lab, "away")
    assert (found["flows"], found["waited"], found["answer"]) == ("flows", True, "HTTP/1.1 200")
    assert found["sessions"] == ["s"]
    assert found["status"] == 0


def test_nothing_passes_either_way_before_it_is_recorded(lab: Lab) -> None:
    """On the wire: connections may be made, but no segment carries a byte, of the session's or of a server that speaks first."""
    found = play(lab, "unrecorded")
    assert found["wire_before"] == []
    assert found["got_before"] == ["", "", "\x05\0", "", ""]
    greeted, echoed, by_socks, plain, inspected = found["got_after"]
    assert greeted.startswith("HTTP/1.1 200 ")
    assert "220 ready" in greeted
    assert echoed.endswith("secret")
    assert by_socks.endswith("secret")
    assert plain.startswith("HTTP/1.1 502 ")  # its own words came back, which are no answer
    assert inspected.startswith("HTTP/1.1 200 ")


def test_another_serves_on_the_same_listeners_when_it_was_killed(lab: Lab) -> None:
    assert play(lab, "killed")["answer"] == "HTTP/1.1 200"


def test_half_closes_resets_and_amounts_are_kept(lab: Lab) -> None:
    found = play(lab, "behaviour")
    assert found["counted"] == found["sent_bytes"] == 8 * _MIB
    assert found["reset"] == "reset"
    assert found["address"] == dns.SERVER
    assert found["reasons"] == ["", "upstream reset"]


@pytest.mark.parametrize("arguments", [[], ["--socket", "x"], ["--socket", "x", "--uid", "many", "--gid", "1"]])
def test_unusable_arguments_are_told(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "coworkd.egressd", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("coworkd-egress: ")


def test_it_does_not_serve_as_root(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coworkd.egressd", "--socket", str(tmp_path / "s"), "--uid", "0", "--gid", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "does not serve" in done.stderr
