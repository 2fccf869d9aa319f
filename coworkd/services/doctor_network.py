"""The network part of doctor: does the way out of sessions stand, behind its walls, and where does it lead.

Each check is a plain function from facts to one `Finding`, as in `services.doctor`. Nothing is sent to anybody but a parent proxy, the
host, and what `[network] probe` names: a self-test must not be the first thing that talks to the outside.

Sources: proc_pid_status(5), resolv.conf(5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coworkd.model.calls import EgressPresets, Finding

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
SECCOMP_FILTER = "2"
_LOGS = "look at coworkctl logs --component egress and journalctl -u coworkd-egress; coworkd starts it again by itself"


class NetworkProbes(Protocol):
    """The facts. Each raises `OSError` where the machine refuses."""

    def read(self, path: str) -> str: ...
    def egress_pid(self) -> int | None:
        """None while coworkd-egress does not answer."""

    def egress_degraded(self) -> tuple[str, ...]:
        """What of its walls the kernel did not give."""

    def presets(self) -> EgressPresets: ...
    def upstream(self) -> str:
        """`direct`, `host`, or a parent proxy's URL without credentials."""

    def default_routes(self) -> tuple[str, ...]:
        """Each default route, for people."""

    def try_upstream(self) -> None:
        """Connect to the parent proxy, or to the host, and close."""

    def reachability(self) -> tuple[str, str | None] | None:
        """What `[network] probe` names, and why it was not reached the last time (None: it was). None where none is named or tried."""

    def resolve(self, host: str) -> None:
        """Look a name up."""


def check_egress(probes: NetworkProbes) -> Finding:
    pid = probes.egress_pid()
    if pid is None:
        return Finding(check="egress", state="failed", detail="coworkd-egress is away: nothing gets out", remedy=_LOGS)
    lacking = probes.egress_degraded()
    if lacking:
        return Finding(
            check="egress",
            state="degraded",
            detail=f"pid {pid} answers, but: {'; '.join(lacking)}",
            remedy="boot a kernel that has it",
        )
    return Finding(check="egress", state="ok", detail=f"pid {pid} answers")


def check_egress_walls(probes: NetworkProbes) -> Finding:
    """What the kernel says of the process, not what it says of itself."""
    name = "egress-walls"
    pid = probes.egress_pid()
    if pid is None:
        return Finding(check=name, state="degraded", detail="not looked at: coworkd-egress is away", remedy=_LOGS)
    status = dict(line.partition(":")[::2] for line in probes.read(f"/proc/{pid}/status").splitlines())
    facts = {key: value.split() for key, value in status.items()}
    breaches = [
        *(["it runs as root"] if "0" in (*facts.get("Uid", ["0"]), *facts.get("Gid", ["0"])) else []),
        *(f"{one} is not empty" for one in CAPABILITY_SETS if int((facts.get(one) or ["1"])[0], 16)),
        *([] if facts.get("NoNewPrivs") == ["1"] else ["no_new_privs is not set"]),
        *([] if facts.get("Seccomp") == [SECCOMP_FILTER] else ["it has no seccomp filter"]),
    ]
    if breaches:
        remedy = f"stop pid {pid} and report this: it must not happen; coworkd starts it again"
        return Finding(check=name, state="failed", detail=f"pid {pid}: {', '.join(breaches)}", remedy=remedy)
    uid = facts["Uid"][0]
    return Finding(check=name, state="ok", detail=f"uid {uid}, no capability, no_new_privs, a seccomp filter")


def check_presets(probes: NetworkProbes) -> Finding:
    told = probes.presets()
    empty = sorted(name for name, preset in told.presets.items() if not preset.hosts)
    if told.file is None:
        detail = f"nobody has found out what they are on this machine; {', '.join(empty)} allow nothing"
        remedy = "coworkctl egress presets --write, then coworkctl call policy.reload"
        return Finding(check="presets", state="degraded", detail=detail, remedy=remedy)
    left = f"; {', '.join(empty)} stand for nothing here" if empty else ""
    return Finding(check="presets", state="ok", detail=f"from {told.file}{left}")


def check_names(probes: NetworkProbes) -> Finding:
    name = "names"
    if probes.upstream() != "direct":
        return Finding(check=name, state="ok", detail="resolved behind the upstream, not here")
    servers = _nameservers(probes)
    if not servers:
        detail = "/etc/resolv.conf names no nameserver: only addresses and names of /etc/hosts can be reached"
        return Finding(check=name, state="degraded", detail=detail, remedy="set up DNS, or an upstream that resolves")
    asked = f"nameserver {', '.join(servers)}"
    probe = probes.reachability()
    if probe is None:
        detail = f"{asked}; not tried, for [network] probe in coworkd.toml names nothing"
        return Finding(check=name, state="ok", detail=detail)
    host = probe[0].rpartition(":")[0].strip("[]")
    try:
        probes.resolve(host)
    except OSError as error:
        detail = f"{host} is not resolved by {asked}: {error.strerror or error}"
        return Finding(
            check=name, state="degraded", detail=detail, remedy="look at the nameservers of /etc/resolv.conf"
        )
    return Finding(check=name, state="ok", detail=f"{asked} resolves {host}")


def check_upstream(probes: NetworkProbes) -> Finding:
    name, upstream = "upstream", probes.upstream()
    if upstream == "direct":
        routes = probes.default_routes()
        if not routes:
            detail = "direct, and there is no default route: nothing but this machine's own links can be reached"
            remedy = "give the guest a network, or set egress.upstream in the profile to host or a parent proxy"
            return Finding(check=name, state="degraded", detail=detail, remedy=remedy)
        way = f"direct, by {', '.join(routes)}"
    else:
        try:
            probes.try_upstream()
        except OSError as error:
            detail = f"{upstream} cannot be connected to: {error.strerror or error}"
            remedy = "see that it serves, or set egress.upstream in the profile"
            return Finding(check=name, state="degraded", detail=detail, remedy=remedy)
        way = f"{upstream} takes connections"
    probe = probes.reachability()
    if probe is not None and probe[1] is not None:
        detail = f"{way}, but {probe[0]} is not reached: {probe[1]}"
        remedy = "look at the network behind it, or at [network] probe in coworkd.toml"
        return Finding(check=name, state="degraded", detail=detail, remedy=remedy)
    return Finding(check=name, state="ok", detail=way if probe is None else f"{way}; {probe[0]} is reached")


NETWORK_CHECKS: dict[str, Callable[[NetworkProbes], Finding]] = {
    "egress": check_egress,
    "egress-walls": check_egress_walls,
    "presets": check_presets,
    "names": check_names,
    "upstream": check_upstream,
}


def _nameservers(probes: NetworkProbes) -> list[str]:
    try:
        lines = probes.read("/etc/resolv.conf").splitlines()
    except FileNotFoundError:
        return []
    return [words[1] for line in lines if (words := line.split())[:1] == ["nameserver"] and len(words) > 1]
