"""Notes: what is right in srt-settings, and does nothing here; a sentence each.

Rules: a key that only restricts and is not enforced here is always told; nothing is told of what has its effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from coworkd.netpolicy.guard import judge_literal
from coworkd.netpolicy.hosts import is_address
from coworkd.netpolicy.patterns import split_pattern, why_never
from coworkd.netpolicy.proxy_url import parse_proxy_url
from coworkd.netpolicy.srt_schema import FILESYSTEM, NETWORK, TOP
from coworkd.settings.findings import did_you_mean

MAX_NOTES = 100
_FOLDERS = "what a session sees of the host is what folders it is given, and their modes"
_SANDBOX = "every command runs in coworkd's own sandbox"
_CODE = "it goes with filterRequest, which is code and cannot stand in a file"
_IDLE: Mapping[str, str] = {
    "network.allowUnixSockets": "which sockets a session sees is a matter of its folders",
    "network.allowAllUnixSockets": "which sockets a session sees is a matter of its folders",
    "network.allowLocalBinding": "a session has a loopback of its own and may use it",
    "network.allowMachLookup": "it is for macOS",
    "network.httpProxyPort": "the proxy is coworkd-egress",
    "network.socksProxyPort": "the proxy is coworkd-egress",
    "network.allowPlaintextHeaderSet": _CODE,
    "network.ambiguousRequestTarget": _CODE,
    "network.stripResponseHeaders": "it is NOT enforced here",
    "network.refuseOpaqueTunnels": "it is NOT enforced here; deny the hosts instead",
    "network.requireHostMatch": "a Host that is not the target's is always refused",
    "network.tlsTerminate": "coworkd.inspect names the domains whose TLS is opened",
    "filesystem.disabled": _FOLDERS,
    "filesystem.denyRead": _FOLDERS,
    "filesystem.allowRead": _FOLDERS,
    "filesystem.allowWrite": _FOLDERS,
    "filesystem.denyWrite": _FOLDERS,
    "filesystem.allowGitConfig": _FOLDERS,
    "credentials": "no credential of the host is ever in a session",
    "ignoreViolations": "every refusal is recorded",
    "enableWeakerNestedSandbox": _SANDBOX,
    "allowNestedUserNamespaces": _SANDBOX,
    "enableWeakerNetworkIsolation": "it is for macOS",
    "allowAppleEvents": "it is for macOS",
    "ripgrep": _SANDBOX,
    "mandatoryDenySearchDepth": _SANDBOX,
    "allowPty": "it is for macOS",
    "seccomp": "filters are chosen by the profile's sandbox.seccomp",
    "bwrapPath": _SANDBOX,
    "socatPath": "nothing here needs it",
    "javaAgentJarPath": "nothing here needs it",
    "windows": "it is for Windows",
    "git": "the session's own git configuration is its own",
}


def note_settings(tree: Mapping[str, Any]) -> list[str]:
    """The notes on a whole file in which nothing is wrong."""
    notes: list[str] = []
    for note in _all(tree):
        if len(notes) == MAX_NOTES:
            return [*notes, "and more: only the first are told"]
        notes.append(note)
    return notes


def _all(tree: Mapping[str, Any]) -> Iterator[str]:
    network = tree["network"]
    yield from _idle(tree)
    yield from _unknown(tree, "", (*TOP, "coworkd"))
    yield from _unknown(network, "network.", NETWORK)
    yield from _unknown(tree["filesystem"], "filesystem.", FILESYSTEM)
    for key in ("allowedDomains", "deniedDomains"):
        yield from _patterns(f"network.{key}", network[key])
    yield from _patterns("network.mitmProxy.domains", network.get("mitmProxy", {}).get("domains", ()))
    yield from _addresses(network["allowedDomains"], tree.get("coworkd", {}).get("allow_private", False))
    for pattern in network.get("deniedDomainReasons", {}):
        if pattern not in network["deniedDomains"]:
            yield f"network.deniedDomainReasons: {pattern!r} is not in network.deniedDomains, so its reason is never told"
    for key in ("http", "https"):
        url = network.get("parentProxy", {}).get(key)
        if url is not None and parse_proxy_url(url) is None:
            yield f"network.parentProxy.{key} is no proxy that can be used, so what would go through it is refused: http, https or socks5h"


def _idle(tree: Mapping[str, Any]) -> Iterator[str]:
    for dotted, why in _IDLE.items():
        table, dot, key = dotted.rpartition(".")
        inside = tree[table] if dot else tree
        if key in inside and inside[key] not in ([], False):
            yield f"{dotted} does nothing here: {why}"


def _unknown(inside: Mapping[str, Any], above: str, known: Iterable[str]) -> Iterator[str]:
    for key in inside:
        if key not in known and not str(key).startswith("$"):
            yield f"{above}{key} is no key of sandbox-runtime and does nothing{did_you_mean(str(key), known)[0]}"


def _patterns(key: str, patterns: Iterable[str]) -> Iterator[str]:
    for index, pattern in enumerate(patterns):
        why = why_never(pattern)
        if why is not None:
            yield f"{key}[{index}]: {pattern!r} matches nothing, for {why}"


def _addresses(allowed: Iterable[str], allow_private: bool) -> Iterator[str]:
    for index, pattern in enumerate(allowed):
        host, _ = split_pattern(pattern)
        if host == "localhost":
            yield f"network.allowedDomains[{index}]: 'localhost' is never reached: a session's own it needs no proxy for"
        elif is_address(host):
            why = judge_literal(host, allow_private=allow_private)
            if why is not None:
                yield f"network.allowedDomains[{index}]: {pattern!r} is never reached: {why}"
