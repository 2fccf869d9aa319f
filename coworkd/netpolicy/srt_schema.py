"""srt-settings: every key there is, and what may stand behind it.

Rules (sandbox-runtime 0.0.83; FACTS §6)
- `network.allowedDomains`, `.deniedDomains`, `filesystem.denyRead`, `.allowWrite` and `.denyWrite` must be there.
- Unknown keys are passed over, but within `credentials`, its `awsPairs` and `sigv4`, and in marked paths, where they are mistakes.
- A key of another system is checked as well: a file is valid everywhere or nowhere.
- A deny whose pattern ends in a `/` could match no path, and is refused; what keys ask of each other stands in `srt_credentials`.

Does not look into `coworkd`: that is `own_keys`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from coworkd.netpolicy.js_regex import BadRegex, count_groups
from coworkd.netpolicy.patterns import Wrong, refuse_domain, refuse_domain_name
from coworkd.netpolicy.ranges import parse_range
from coworkd.netpolicy.schema import (
    Check,
    Place,
    both,
    flag,
    list_of,
    map_of,
    one_of,
    table,
    text,
    told,
    whole,
)
from coworkd.netpolicy.srt_credentials import check_credentials
from coworkd.netpolicy.urls import is_url

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
_GLOB = re.compile(r"[*?\[\]]")


def _refuse_range(value: str) -> Wrong | None:
    if parse_range(value) is not None:
        return None
    return f'{value!r} is no IP address or range, such as "10.0.0.0/8" or "fc00::/7"', None


def _refuse_url(value: str) -> Wrong | None:
    close = f"http://{value}" if is_url(f"http://{value}") else None
    return None if is_url(value) else (f"{value!r} is no URL", close)


def _refuse_variable(value: str) -> Wrong | None:
    return None if _VARIABLE.match(value) else (f"{value!r} is no name of an environment variable", None)


def _refuse_binary(value: str) -> Wrong | None:
    return None if value.startswith("/") else (f"{value!r} is no absolute path", None)


def _refuse_uuid(value: str) -> Wrong | None:
    return None if _UUID.match(value) else (f"{value!r} is no UUID", None)


def _refuse_service(value: str) -> Wrong | None:
    inner = value[:-1] if value.endswith("*") else value
    return (f"{value!r}: a '*' stands only at the end", None) if "*" in inner else None


def _refuse_extract(value: str) -> Wrong | None:
    try:
        groups = count_groups(value)
    except BadRegex as error:
        return f"{value!r} is no regular expression: it {error}", None
    return None if groups else (f"{value!r} captures nothing: group 1 is what is masked", None)


def _absent(value: object, place: Place) -> None:
    place.refuse("is code and cannot stand in a file")


def _path(value: object, place: Place) -> None:
    if isinstance(value, str) and value:
        return
    if isinstance(value, Mapping) and set(value) == {"path", "literal"}:
        path = value["path"]
        if isinstance(path, str) and path and value["literal"] is True:
            return
    place.refuse('wants a path that is not empty, or { "path": "<path>", "literal": true }')


def _ca_pair(value: Mapping[str, Any], place: Place) -> None:
    if ("caCertPath" in value) != ("caKeyPath" in value):
        place.refuse("caCertPath and caKeyPath go together")


def _port_span(value: object, place: Place) -> None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        place.refuse("wants two ports, [low, high]")
        return
    before = place.mistakes
    whole(1, float("inf"))(value[0], place.below(0))
    whole(float("-inf"), 65535)(value[1], place.below(1))
    if place.mistakes == before and not 0 <= value[1] - value[0] <= 64:
        place.refuse("wants low ≤ high, and at most 65 ports")


_PORT = whole(1, 65535)
_NAMED = text(1)
_DOMAINS = list_of(told(refuse_domain_name, "a domain"))
_PATHS = list_of(_path)

_MITM = table(
    {"socketPath": _NAMED, "domains": list_of(told(refuse_domain_name, "a domain"), 1)},
    required=("socketPath", "domains"),
)
_PARENT = table({"http": told(_refuse_url, "a URL"), "https": told(_refuse_url, "a URL"), "noProxy": text()})
_TLS = both(
    table(
        {
            "caCertPath": _NAMED,
            "caKeyPath": _NAMED,
            "excludeDomains": _DOMAINS,
            "extraCaCertPaths": list_of(_NAMED),
            "maxTunnels": whole(1, 65536),
            "handshakeTimeoutMs": whole(100, 600000),
        }
    ),
    _ca_pair,
)
NETWORK: Mapping[str, Check] = {
    "allowedDomains": list_of(told(lambda entry: refuse_domain(entry, denied=False), "a domain")),
    "deniedDomains": list_of(told(lambda entry: refuse_domain(entry, denied=True), "a domain")),
    "deniedDomainReasons": map_of(_NAMED),
    "strictAllowlist": flag,
    "deniedResolvedAddresses": list_of(told(_refuse_range, "an IP address or range")),
    "allowUnixSockets": list_of(text()),
    "allowAllUnixSockets": flag,
    "allowLocalBinding": flag,
    "allowMachLookup": list_of(told(_refuse_service, "the name of a service")),
    "httpProxyPort": _PORT,
    "socksProxyPort": _PORT,
    "mitmProxy": _MITM,
    "filterRequest": _absent,
    "allowPlaintextHeaderSet": flag,
    "stripResponseHeaders": list_of(_NAMED),
    "refuseOpaqueTunnels": flag,
    "requireHostMatch": flag,
    "ambiguousRequestTarget": one_of("refuse", "asSpelled", "normalize"),
    "tlsTerminate": _TLS,
    "parentProxy": _PARENT,
}
FILESYSTEM: Mapping[str, Check] = {
    "disabled": flag,
    "denyRead": _PATHS,
    "allowRead": _PATHS,
    "allowWrite": _PATHS,
    "denyWrite": _PATHS,
    "allowGitConfig": flag,
}
_MASKED: Mapping[str, Check] = {
    "mode": one_of("deny", "mask"),
    "extract": told(_refuse_extract, "a regular expression"),
    "onExtractNoMatch": one_of("warn", "deny", "error"),
    "decode": one_of("jwt"),
    "maskClaims": list_of(_NAMED),
    "injectHosts": _DOMAINS,
}
_VARIABLE_NAME = told(_refuse_variable, "the name of an environment variable")
_SIGNING = one_of("deny", "passthrough")
CREDENTIALS = table(
    {
        "files": list_of(
            table({**_MASKED, "path": _NAMED, "maskDuplicates": flag}, required=("path", "mode")),
        ),
        "envVars": list_of(table({**_MASKED, "name": _VARIABLE_NAME}, required=("name", "mode"))),
        "allowPlaintextInject": flag,
        "awsPairs": list_of(
            table(
                dict.fromkeys(("accessKeyIdVar", "secretAccessKeyVar", "sessionTokenVar"), _VARIABLE_NAME),
                required=("accessKeyIdVar", "secretAccessKeyVar"),
                strict=True,
            )
        ),
        "sigv4": table(dict.fromkeys(("streaming", "presigned", "sigv4a"), _SIGNING), strict=True),
    },
    strict=True,
)
_BINARY = told(_refuse_binary, "an absolute path")
_WINDOWS = table(
    {
        "backend": one_of("mxc", "srt-win"),
        "sandboxUser": text(1, 20),
        "sublayerGuid": told(_refuse_uuid, "a UUID"),
        "wfpSublayerGuid": told(_refuse_uuid, "a UUID"),
        "proxyPortRange": _port_span,
        "srtWin": table({"path": _NAMED}, required=("path",)),
    }
)
TOP: Mapping[str, Check] = {
    "network": table(NETWORK, required=("allowedDomains", "deniedDomains")),
    "filesystem": table(FILESYSTEM, required=("denyRead", "allowWrite", "denyWrite")),
    "credentials": CREDENTIALS,
    "ignoreViolations": map_of(list_of(text())),
    "enableWeakerNestedSandbox": flag,
    "allowNestedUserNamespaces": flag,
    "enableWeakerNetworkIsolation": flag,
    "allowAppleEvents": flag,
    "ripgrep": table({"command": text(), "args": list_of(text()), "argv0": text()}, required=("command",)),
    "mandatoryDenySearchDepth": whole(1, 10),
    "allowPty": flag,
    "seccomp": table({"applyPath": text(), "argv0": text()}),
    "bwrapPath": _BINARY,
    "socatPath": _BINARY,
    "javaAgentJarPath": _BINARY,
    "windows": _WINDOWS,
    "git": table({"safeDirectories": list_of(text())}),
}


def _between_keys(tree: Mapping[str, Any], place: Place) -> None:
    filesystem = tree["filesystem"]
    if not filesystem.get("disabled"):
        for key in ("denyRead", "denyWrite"):
            for index, entry in enumerate(filesystem[key]):
                refuse_inert_deny(entry, place.below("filesystem").below(key).below(index))
    if "credentials" in tree:
        check_credentials(tree, place.below("credentials"), refuse_inert_deny)


def refuse_inert_deny(entry: object, place: Place) -> None:
    """Refuse a rooted deny pattern that ends in a `/`: it would match nothing and deny nothing."""
    if isinstance(entry, str) and entry.endswith("/") and _GLOB.search(entry) and entry[0] in "/~":
        place.refuse(f"{entry!r} ends in a '/' and would match no path", entry.rstrip("/"))


SRT = both(table(TOP, required=("network", "filesystem")), _between_keys)
"""A whole file."""
