"""What the keys of `credentials` ask of each other and of `network`, in settings whose single keys are right.

Rules (sandbox-runtime 0.0.83)
- A masked credential needs `network.tlsTerminate`, or `allowPlaintextInject`; where it is put in must be allowed, and be opened.
- `maskClaims` goes with `decode`; neither it nor `injectHosts` is empty. What is masked in a file is a file.
- The variables of an AWS pair are masked as a whole, and each has one place.

Nothing of this has an effect here (a host's credentials are in no session); it is checked so that a file is valid everywhere or nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from coworkd.netpolicy.hosts import is_address, strip_brackets
from coworkd.netpolicy.patterns import split_pattern
from coworkd.netpolicy.schema import Place


def check_credentials(
    tree: Mapping[str, Any], place: Place, refuse_inert_deny: Callable[[object, Place], None]
) -> None:
    """Report what does not go together; `place` is that of `credentials`."""
    credentials = tree["credentials"]
    network = tree["network"]
    allowed = [split_pattern(entry)[0] for entry in network["allowedDomains"]]
    check = _Masked(allowed, network.get("tlsTerminate", {}).get("excludeDomains", ()))
    for kind in ("envVars", "files"):
        for index, entry in enumerate(credentials.get(kind, ())):
            check.entry(entry, place.below(kind).below(index))
    for index, entry in enumerate(credentials.get("files", ())):
        at = place.below("files").below(index).below("path")
        if entry["mode"] == "mask" and entry["path"].endswith("/"):
            at.refuse("is a directory: what is masked is one file; deny it, or name the file in it")
        if entry["mode"] == "deny" and not tree["filesystem"].get("disabled"):
            refuse_inert_deny(entry["path"], at)
    _check_pairs(credentials, place)
    if check.any_masked and "tlsTerminate" not in network and not credentials.get("allowPlaintextInject"):
        place.refuse("masks credentials, which needs network.tlsTerminate, or allowPlaintextInject")


def is_covered(pattern: str, by: Iterable[str]) -> bool:
    """Whether every host that `pattern` can match is matched by one of `by`; none has a port."""
    if pattern.startswith("*."):
        base = pattern[2:].lower()
        return any(other.startswith("*.") and f".{base}".endswith(f".{other[2:].lower()}") for other in by)
    return any(_matches(pattern.lower(), other.lower()) for other in by)


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return not is_address(strip_brackets(host)) and host.endswith(pattern[1:])
    return pattern in ("*", host)


class _Masked:
    def __init__(self, allowed: Sequence[str], excluded: Sequence[str]) -> None:
        self.allowed = allowed
        self.excluded = excluded
        self.any_masked = False

    def entry(self, entry: Mapping[str, Any], place: Place) -> None:
        hosts = entry.get("injectHosts")
        for index, host in enumerate(hosts or ()):
            if not is_covered(host, self.allowed):
                place.below("injectHosts").below(index).refuse(f"{host!r} is not allowed by network.allowedDomains")
        if entry["mode"] == "mask":
            self.any_masked = True
            self._opened(hosts, place)
            if hosts is not None and not hosts:
                place.refuse("has empty injectHosts: it would be masked and never be put in")
        if "maskClaims" in entry and "decode" not in entry:
            place.below("maskClaims").refuse('goes with decode, such as "jwt"')
        if "maskClaims" in entry and not entry["maskClaims"]:
            place.below("maskClaims").refuse("is empty; leave it out to mask all of it")

    def _opened(self, hosts: Sequence[str] | None, place: Place) -> None:
        if not self.excluded:
            return
        if hosts is not None:
            for index, host in enumerate(hosts):
                if is_covered(host, self.excluded):
                    said = f"{host!r} is in network.tlsTerminate.excludeDomains, where nothing is put in"
                    place.below("injectHosts").below(index).refuse(said)
        elif self.allowed and all(is_covered(host, self.excluded) for host in self.allowed):
            place.refuse("could be put in nowhere: network.tlsTerminate.excludeDomains has every allowed domain")


def _check_pairs(credentials: Mapping[str, Any], place: Place) -> None:
    known: dict[str, Mapping[str, Any]] = {}
    for entry in credentials.get("envVars", ()):
        known.setdefault(entry["name"], entry)
    seen: set[str] = set()
    for index, pair in enumerate(credentials.get("awsPairs", ())):
        for key in ("accessKeyIdVar", "secretAccessKeyVar", "sessionTokenVar"):
            name = pair.get(key)
            if name is None:
                continue
            at = place.below("awsPairs").below(index).below(key)
            variable = known.get(name)
            if name in seen:
                at.refuse(f"{name!r} has a place already")
            elif variable is None or variable["mode"] != "mask":
                at.refuse(f"{name!r} is no variable of credentials.envVars with mode mask")
            elif "extract" in variable or "decode" in variable:
                at.refuse(f"{name!r} must be masked as a whole, without extract and decode")
            seen.add(name)
