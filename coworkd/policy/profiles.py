"""Profiles: layers of files → a `PolicySet`, all of it right or none of it.

How a profile comes about: its files in all layers, a higher one replacing whole keys of the lower (lists included); below that
the profile it `inherits`, made in the same way. In the end every key must have been given by someone.

Invariants
- A `PolicySet` is complete: every name in a profile or in the ceiling exists, every srt-settings file is valid.
- Everything that is wrong, in whatever file, is in the one `BadFile` that is raised.
- What OCI seccomp files say is not read here (their room is `seccomp/`), only that they exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from coworkd.model.egress import EgressSettings
from coworkd.model.policy import Profile
from coworkd.netpolicy.srt import parse_settings
from coworkd.policy.ceiling import Ceiling, load_ceiling
from coworkd.policy.keys import PROFILE_KEYS, REQUIRED_KEYS, build_profile
from coworkd.policy.layers import Layer, PolicyFile, collect, find_strays
from coworkd.settings import BadFile, Finding, Given, read_tables
from coworkd.settings.findings import MAX_FINDINGS, did_you_mean

DEFAULT_PROFILE = "default"
MAX_INHERITANCE = 16


class PolicySet(Struct, frozen=True, kw_only=True):
    """Everything the layers say. `profiles` are as written, before the ceiling; `sources` is profile → key → `file:line`."""

    profiles: Mapping[str, Profile]
    sources: Mapping[str, Mapping[str, str]]
    ceiling: Ceiling
    ceiling_sources: Mapping[str, str]
    seccomp: Mapping[str, PolicyFile]
    egress: Mapping[str, PolicyFile]
    egress_settings: Mapping[str, EgressSettings]
    """What the files of `egress` say; their presets are not looked up yet."""


def parse_profile(data: bytes, *, file: str) -> dict[str, Given]:
    """The keys of one profile file as they stand there, or `BadFile`."""
    return read_tables(data, file=file, schema=PROFILE_KEYS)


def load_policies(layers: Sequence[Layer]) -> PolicySet:
    """Resolve `layers`, the lowest first. Raises `BadFile` with every finding of every file."""
    findings = [stray for layer in layers for stray in find_strays(layer)]
    seccomp = {name: files[-1] for name, files in collect(layers, "seccomp").items()}
    egress = {name: files[-1] for name, files in collect(layers, "egress").items()}
    ceiling = load_ceiling(layers, findings)
    egress_settings = _read_egress_files(layers, findings)
    resolver = _Resolver(layers, findings)
    resolved = {name: resolver.resolve(name) for name in resolver.own}
    names = {"sandbox.seccomp": seccomp, "egress.settings": egress}
    for given in [ceiling, *resolver.own.values()]:
        _check_names(given, names, findings)
    if DEFAULT_PROFILE not in resolver.own and not findings:
        root = layers[0].root if layers else "policies"
        said = "there is no profile 'default', which is what a session without one gets"
        findings.append(Finding(file=f"{root}/profiles/default.toml", line=1, key="", message=said))
    if findings:
        raise BadFile(_without_repeats(findings))
    return PolicySet(
        profiles={
            name: build_profile(name, {key: item.value for key, item in given.items()})
            for name, given in resolved.items()
        },
        sources={
            name: {key: f"{item.file}:{item.line}" for key, item in given.items()} for name, given in resolved.items()
        },
        ceiling=Ceiling({key: item.value for key, item in ceiling.items()}),
        ceiling_sources={key: f"{item.file}:{item.line}" for key, item in ceiling.items()},
        seccomp=seccomp,
        egress=egress,
        egress_settings=egress_settings,
    )


class _Resolver:
    """`own`: profile → the keys of its own files, over all layers."""

    def __init__(self, layers: Sequence[Layer], findings: list[Finding]) -> None:
        self.findings = findings
        self.own: dict[str, dict[str, Given]] = {}
        self._files: dict[str, str] = {}
        self._broken: set[str] = set()
        for name, files in collect(layers, "profiles").items():
            self.own[name] = {}
            for file in files:
                self._files[name] = file.file
                try:
                    self.own[name].update(parse_profile(file.data, file=file.file))
                except BadFile as error:
                    self.findings.extend(error.findings)
                    self._broken.add(name)

    def resolve(self, profile: str) -> dict[str, Given]:
        """All keys of `profile`; what is missing or goes in a circle becomes a finding."""
        chain = [profile]
        while (inherits := self.own[chain[-1]].get("inherits")) is not None:
            parent: str = inherits.value
            if not self._is_sound(parent, chain, inherits):
                return {}
            chain.append(parent)
        merged: dict[str, Given] = {}
        for name in reversed(chain):
            merged.update(self.own[name])
        merged.pop("inherits", None)
        missing = [key for key in REQUIRED_KEYS if key not in merged]
        if missing and not self._broken.intersection(chain):
            others = f" (and so are {', '.join(missing[1:])})" if missing[1:] else ""
            said = f'is missing{others}; give it, or inherit it: inherits = "default"'
            self._add(self._files[profile], 1, missing[0], said)
        return merged

    def _is_sound(self, parent: str, chain: Sequence[str], inherits: Given) -> bool:
        if parent == chain[-1]:
            said = "names the profile itself; a file of the same name in a lower layer is below this one anyway"
        elif parent in chain:
            said = f"goes in a circle: {' → '.join([*chain, parent])}"
        elif parent not in self.own:
            hint, close = did_you_mean(parent, self.own)
            self._add(inherits.file, inherits.line, "inherits", f"there is no profile {parent!r}{hint}", close)
            return False
        elif len(chain) >= MAX_INHERITANCE:
            said = f"is more than {MAX_INHERITANCE} profiles deep"
        else:
            return True
        self._add(inherits.file, inherits.line, "inherits", said)
        return False

    def _add(self, file: str, line: int, key: str, message: str, close: str | None = None) -> None:
        self.findings.append(Finding(file=file, line=line, key=key, message=message, nearest=close))


def _check_names(
    given: Mapping[str, Given], names: Mapping[str, Mapping[str, PolicyFile]], findings: list[Finding]
) -> None:
    """Every seccomp and egress name in one file's keys must be a file of some layer."""
    for key, known in names.items():
        item = given.get(key)
        if item is None:
            continue
        for name in item.value if isinstance(item.value, tuple) else (item.value,):
            if name in known:
                continue
            hint, close = did_you_mean(name, known)
            folder = "seccomp" if key == "sandbox.seccomp" else "egress"
            said = f"there is no {folder}/{name}.json in any layer{hint}"
            findings.append(Finding(file=item.file, line=item.line, key=key, message=said, nearest=close))


def _read_egress_files(layers: Sequence[Layer], findings: list[Finding]) -> dict[str, EgressSettings]:
    """Name → what its highest layer says; a mistake in a lower one is a mistake too."""
    read: dict[str, EgressSettings] = {}
    for name, files in collect(layers, "egress").items():
        for file in files:
            try:
                read[name] = parse_settings(file.data, file=file.file)
            except BadFile as error:
                findings.extend(error.findings)
    return read


def _without_repeats(findings: Sequence[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))[:MAX_FINDINGS]
