"""The network checks, each from made-up facts, good and bad."""

from __future__ import annotations

import errno

import pytest

from coworkd.model.calls import EgressPresets, PresetShown
from coworkd.services.doctor_network import CAPABILITY_SETS
from tests.unit.services.test_doctor import FILES, Machine, error, find

STATUS = FILES["/proc/7/status"]
UNRESOLVED = EgressPresets(presets={"python": PresetShown(hosts=(), made_from=())}, file=None, made_at=None)
PARTLY = EgressPresets(presets={"node": PresetShown(hosts=(), made_from=())}, file="/etc/p.json", made_at=1.0)
REFUSED = error(errno.ECONNREFUSED)


def status(old: str, new: str) -> Machine:
    assert old in STATUS
    return Machine(files={"/proc/7/status": STATUS.replace(old, new)})


BAD = [
    ("egress", "failed", Machine(egress_pid=None), "nothing gets out", "journalctl -u coworkd-egress"),
    ("egress", "degraded", Machine(egress_degraded=("no Landlock",)), "no Landlock", "kernel"),
    ("egress-walls", "degraded", Machine(egress_pid=None), "not looked at", "coworkctl logs"),
    ("egress-walls", "failed", status("Uid:\t61184\t61184", "Uid:\t61184\t0"), "as root", "must not happen"),
    ("egress-walls", "failed", status("Gid:\t61184", "Gid:\t0"), "as root", "must not happen"),
    ("egress-walls", "failed", status("NoNewPrivs:\t1", "NoNewPrivs:\t0"), "no_new_privs", "must not happen"),
    ("egress-walls", "failed", status("Seccomp:\t2", "Seccomp:\t0"), "no seccomp filter", "must not happen"),
    ("egress-walls", "failed", Machine(files={"/proc/7/status": "Name:\tx\n"}), "as root", "must not happen"),
    ("presets", "degraded", Machine(presets=UNRESOLVED), "python allow nothing", "egress presets --write"),
    ("names", "degraded", Machine(files={"/etc/resolv.conf": "search x\n"}), "no nameserver", "DNS"),
    (
        "names",
        "degraded",
        Machine(reachability=("probe.example:443", None), resolve=OSError(-2, "Name or service not known")),
        "probe.example is not resolved by nameserver 198.51.100.53: Name or service",
        "resolv.conf",
    ),
    ("upstream", "degraded", Machine(default_routes=()), "no default route", "egress.upstream"),
    (
        "upstream",
        "degraded",
        Machine(upstream="host", try_upstream=REFUSED),
        "Connection refused",
        "see that it serves",
    ),
    (
        "upstream",
        "degraded",
        Machine(reachability=("probe.example:443", "timed out")),
        "direct, by eth0 via 198.51.100.1, but probe.example:443 is not reached: timed out",
        "[network] probe",
    ),
]


@pytest.mark.parametrize(("check", "state", "machine", "detail", "remedy"), BAD)
def test_what_is_wrong_is_told_with_its_remedy(
    check: str, state: str, machine: Machine, detail: str, remedy: str
) -> None:
    found = find(check, machine)
    assert found.state == state
    assert detail in found.detail
    assert remedy in found.remedy


@pytest.mark.parametrize("name", CAPABILITY_SETS)
def test_a_capability_in_any_set_is_a_breach(name: str) -> None:
    found = find("egress-walls", status(f"{name}:\t0000000000000000", f"{name}:\t0000000000200000"))
    assert (found.state, f"{name} is not empty" in found.detail) == ("failed", True)
    missing = find("egress-walls", status(f"{name}:\t0000000000000000\n", ""))
    assert missing.state == "failed"


GOOD = [
    ("egress", Machine(), "pid 7 answers"),
    ("egress-walls", Machine(), "uid 61184, no capability"),
    ("presets", Machine(presets=PARTLY), "from /etc/p.json; node stand for nothing here"),
    ("names", Machine(), "not tried"),
    ("names", Machine(reachability=("[2001:db8::1]:1", None)), "resolves 2001:db8::1"),
    ("names", Machine(upstream="host", files={"/etc/resolv.conf": ""}), "behind the upstream"),
    ("upstream", Machine(), "direct, by eth0"),
    ("upstream", Machine(upstream="host", default_routes=()), "host takes connections"),
    ("upstream", Machine(reachability=("probe.example:443", None)), "probe.example:443 is reached"),
]


@pytest.mark.parametrize(("check", "machine", "detail"), GOOD)
def test_what_works_is_told(check: str, machine: Machine, detail: str) -> None:
    found = find(check, machine)
    assert (found.state, found.remedy) == ("ok", "")
    assert detail in found.detail
