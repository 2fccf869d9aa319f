"""srt-settings: whether a file is one that sandbox-runtime would take, and where it is not.

Rules (sandbox-runtime 0.0.83; FACTS §6)
- `network.allowedDomains`, `network.deniedDomains`, `filesystem.denyRead`, `.allowWrite` and `.denyWrite` must be there.
- Unknown keys are passed over, as sandbox-runtime does; a known one of the wrong type is a mistake, `null` included.
- A domain is split at one `:port` first. The host is `localhost`, an IPv6 address in brackets, or has a dot with nothing
  empty at its ends; `*.D` needs a D with a dot and no empty label; `*` alone, with or without port, only in `deniedDomains`.
- No character is refused beyond that: such a pattern is valid and matches nothing.

Does not match hosts and does not look into `credentials`, `parentProxy` and their like: that is `netpolicy`'s.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from coworkd.settings import BadFile, Finding
from coworkd.settings.findings import MAX_FINDINGS, did_you_mean
from coworkd.settings.json_lines import parse_json
from coworkd.settings.lines import KeyLines, KeyPath

_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
_URL_HOST = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/@]*@)?([^/?#]+)", re.IGNORECASE)

Wrong = tuple[str, "str | None"]
"""A sentence, and the nearest right spelling where one is close."""
Rule = Callable[[object], "Wrong | None"]


def check_srt(data: bytes, *, file: str) -> dict[str, Any]:
    """Return the settings in `data`, or raise `BadFile` with everything that is wrong."""
    tree, lines = parse_json(data, file=file)
    check = _Check(file, lines)
    for table, rules in _TABLES.items():
        check.table(tree, table, rules)
    check.optional(tree, (), _TOP)
    if check.findings:
        raise BadFile(check.findings)
    return tree


def refuse_domain(entry: str, *, denied: bool) -> Wrong | None:
    """None where `entry` may stand in a domain list, else why not; `denied` is the list in which `*` may stand."""
    host, bracketed = _split_port(entry)
    if bracketed and _is_ipv6(host):
        return None
    if host == "*" and denied:
        return None
    if "://" in entry:
        found = _URL_HOST.match(entry)
        return f"{entry!r} is a URL; a domain list takes hosts", found[1] if found else None
    if "/" in host:
        return f"{entry!r} has a path or is an address range; ranges stand in network.deniedResolvedAddresses", None
    if ":" in host:
        close = f"[{entry}]" if _is_ipv6(entry) else None
        return f"{entry!r} has a ':' that begins no port from 1 to 65535; IPv6 addresses stand in brackets", close
    return _refuse_host(entry, host)


def _refuse_host(entry: str, host: str) -> Wrong | None:
    domain = host[2:] if host.startswith("*.") else host
    if host == "localhost":
        return None
    if "*" in domain:
        return f"{entry!r}: a '*' stands only before a domain, as in '*.example.com'", None
    if not domain.strip("."):
        return f"{entry!r} names no host", None
    if "." not in domain.strip("."):
        wide = "reaches too far" if host != domain else "has no dot; besides 'localhost' a host has one"
        return f"{entry!r} {wide}", None
    if domain.startswith(".") or domain.endswith("."):
        return f"{entry!r} begins or ends with a dot", entry.replace(domain, domain.strip("."))
    if host != domain and "" in domain.split("."):
        return f"{entry!r} has an empty label", None
    return None


def _split_port(entry: str) -> tuple[str, bool]:
    """Host without brackets, zone and port, and whether it stood in brackets; whole where there is no such port."""
    if entry.startswith("["):
        inner, closed, rest = entry[1:].partition("]")
        if closed and (rest == "" or (rest[0] == ":" and _is_port(rest[1:]))):
            return inner.partition("%")[0], True
        return entry, False
    host, colon, port = entry.rpartition(":")
    if colon and ":" not in host and _is_port(port):
        return host, False
    return entry, False


def _is_port(digits: str) -> bool:
    return _PORT.match(digits) is not None and int(digits) <= 65535


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _flag(value: object) -> Wrong | None:
    return None if isinstance(value, bool) else ("wants true or false", None)


def _object(value: object) -> Wrong | None:
    return None if isinstance(value, dict) else ("wants an object", None)


def _text(value: object) -> Wrong | None:
    return None if isinstance(value, str) else ("wants text", None)


def _port_number(value: object) -> Wrong | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in range(1, 65536):
        return "wants a port from 1 to 65535", None
    return None


def _path(value: object) -> Wrong | None:
    if isinstance(value, str) and value:
        return None
    if isinstance(value, dict) and set(value) == {"path", "literal"}:
        path = value["path"]
        if isinstance(path, str) and path and value["literal"] is True:
            return None
    return 'wants a path that is not empty, or { "path": "<path>", "literal": true }', None


def _address_range(value: object) -> Wrong | None:
    if isinstance(value, str):
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            pass
        else:
            return None
    return 'wants an IP address or range, such as "10.0.0.0/8" or "fc00::/7"', None


def _allowed_domain(value: object) -> Wrong | None:
    return refuse_domain(value, denied=False) if isinstance(value, str) else ("wants a domain", None)


def _denied_domain(value: object) -> Wrong | None:
    return refuse_domain(value, denied=True) if isinstance(value, str) else ("wants a domain", None)


class _ListOf:
    """A rule for each element of a list."""

    def __init__(self, element: Rule) -> None:
        self.element = element

    def __call__(self, value: object) -> Wrong | None:
        return None if isinstance(value, list) else ("wants a list", None)


_NETWORK: Mapping[str, tuple[bool, Rule]] = {
    "allowedDomains": (True, _ListOf(_allowed_domain)),
    "deniedDomains": (True, _ListOf(_denied_domain)),
    "strictAllowlist": (False, _flag),
    "deniedDomainReasons": (False, _object),
    "deniedResolvedAddresses": (False, _ListOf(_address_range)),
    "allowUnixSockets": (False, _ListOf(_text)),
    "allowAllUnixSockets": (False, _flag),
    "allowLocalBinding": (False, _flag),
    "allowMachLookup": (False, _ListOf(_text)),
    "httpProxyPort": (False, _port_number),
    "socksProxyPort": (False, _port_number),
    "mitmProxy": (False, _object),
    "parentProxy": (False, _object),
    "tlsTerminate": (False, _object),
}
_FILESYSTEM: Mapping[str, tuple[bool, Rule]] = {
    "denyRead": (True, _ListOf(_path)),
    "allowWrite": (True, _ListOf(_path)),
    "denyWrite": (True, _ListOf(_path)),
    "allowRead": (False, _ListOf(_path)),
    "allowGitConfig": (False, _flag),
    "disabled": (False, _flag),
}
_TABLES = {"network": _NETWORK, "filesystem": _FILESYSTEM}
_TOP: Mapping[str, tuple[bool, Rule]] = {
    "credentials": (False, _object),
    "ignoreViolations": (False, _object),
    "enableWeakerNestedSandbox": (False, _flag),
    "allowNestedUserNamespaces": (False, _flag),
    "enableWeakerNetworkIsolation": (False, _flag),
    "allowPty": (False, _flag),
    "coworkd": (False, _object),
}


class _Check:
    def __init__(self, file: str, lines: KeyLines) -> None:
        self.file = file
        self.lines = lines
        self.findings: list[Finding] = []

    def table(self, tree: Mapping[str, Any], table: str, rules: Mapping[str, tuple[bool, Rule]]) -> None:
        inside = tree.get(table)
        if not isinstance(inside, dict):
            hint, close = did_you_mean(table, [key for key in tree if key not in _TABLES])
            said = "wants an object" if table in tree else f"is missing{hint.replace('did you mean', 'is it')}"
            self._add((table,), (said, close))
            return
        self.optional(inside, (table,), rules)

    def optional(self, inside: Mapping[str, Any], above: KeyPath, rules: Mapping[str, tuple[bool, Rule]]) -> None:
        for key, (required, rule) in rules.items():
            path = (*above, key)
            if key in inside:
                self._value(path, inside[key], rule)
            elif required:
                near, close = did_you_mean(key, [other for other in inside if other not in rules])
                said = f"is missing{near.replace('did you mean', 'is it')}"
                self._add(path, (said, key if close is not None else None))

    def _value(self, path: KeyPath, value: object, rule: Rule) -> None:
        wrong = rule(value)
        if wrong is not None:
            self._add(path, wrong)
        elif isinstance(rule, _ListOf) and isinstance(value, list):
            for place, element in enumerate(value):
                said = rule.element(element)
                if said is not None:
                    self._add((*path, place), said)

    def _add(self, path: KeyPath, wrong: Wrong) -> None:
        if len(self.findings) >= MAX_FINDINGS:
            return
        message, close = wrong
        if close is not None and "is it" not in message:
            message = f"{message}; did you mean {close!r}?"
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        self.findings.append(
            Finding(file=self.file, line=self.lines.line(path), key=key, message=message, nearest=close)
        )
