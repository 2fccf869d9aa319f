"""srt-settings: bytes, or an object that came over the wire → `EgressSettings`.

Rules
- What sandbox-runtime 0.0.83 takes is taken, what it refuses is refused; but a key given twice, of which it would see the last one,
  and bytes that are no UTF-8 are refused too. `coworkd` holds our own keys, which are strict.
- Everything that is wrong is told at once. What is right and does nothing here is in `warnings`.
- Settings of a request are read alike. That they can only take away is for `decide` and `guard`, which ask the profile's alone about
  ways out and private ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coworkd.model.egress import EgressSettings, MitmProxy, ParentProxy
from coworkd.model.errors import InvalidParams
from coworkd.netpolicy.notes import note_settings
from coworkd.netpolicy.own_keys import OWN, read_own_keys
from coworkd.netpolicy.schema import Findings
from coworkd.netpolicy.srt_schema import SRT
from coworkd.settings import BadFile
from coworkd.settings.json_lines import parse_json


def parse_settings(data: bytes, *, file: str) -> EgressSettings:
    """Read a settings file; `file` becomes `source`. Raises `BadFile` with everything that is wrong."""
    tree, lines = parse_json(data, file=file)
    findings = Findings(file, lines)
    _check(tree, findings)
    if findings.found:
        raise BadFile(findings.found)
    return _read(tree, file)


def parse_settings_map(tree: Mapping[str, Any], *, source: str) -> EgressSettings:
    """Read the settings of a request. Raises `InvalidParams` with the `key` of the first mistake."""
    findings = Findings(source)
    _check(tree, findings)
    if findings.found:
        first = findings.found[0]
        more = f" (and {len(findings.found) - 1} more)" if len(findings.found) > 1 else ""
        error = InvalidParams(f"{source}: {first.key}: {first.message}{more}", key=first.key)
        if first.nearest is not None:
            error.details["nearest"] = first.nearest
        raise error
    return _read(tree, source)


def _check(tree: Mapping[str, Any], findings: Findings) -> None:
    SRT(tree, findings.root)
    if "coworkd" in tree:
        OWN(tree["coworkd"], findings.root.below("coworkd"))


def _read(tree: Mapping[str, Any], source: str) -> EgressSettings:
    network = tree["network"]
    own = read_own_keys(tree.get("coworkd", {}))
    parent = network.get("parentProxy")
    mitm = network.get("mitmProxy")
    return EgressSettings(
        source=source,
        allowed=_texts(network["allowedDomains"]),
        denied=_texts(network["deniedDomains"]),
        denied_reasons={_text(key): _text(reason) for key, reason in network.get("deniedDomainReasons", {}).items()},
        denied_addresses=_texts(network.get("deniedResolvedAddresses", ())),
        strict=network.get("strictAllowlist", False),
        parent=None
        if parent is None
        else ParentProxy(
            http=_optional(parent.get("http")),
            https=_optional(parent.get("https")),
            no_proxy=_text(parent.get("noProxy", "")),
        ),
        mitm=None
        if mitm is None
        else MitmProxy(socket_path=_text(mitm["socketPath"]), domains=_texts(mitm["domains"])),
        presets=own.presets,
        limits=own.limits,
        allow_private=own.allow_private,
        inspect=own.inspect,
        warnings=tuple(map(_text, note_settings(tree))),
    )


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: str) -> str:
    """`value` as it can travel: JSON can spell half a surrogate pair, which matches nothing and is no UTF-8."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
