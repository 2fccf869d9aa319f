"""Presets: the names that stand for the hosts of an ecosystem, and what each comes to on this machine.

Rules
- Some hosts are the same everywhere and stand here. Those of package indexes are what the tools of this machine are set up to use:
  they come from a `PresetTable`, which is made when coworkd is installed, so that a mirror in use is the one that is allowed.
- A preset whose hosts nobody found out allows nothing, and settings that name it say so.
- The file of a table, where `from` is for people:

      {"format": 1, "made_at": EPOCH, "presets": {"python": {
          "hosts": ["index.example"], "from": ["/etc/pip.conf"], "env": {"PIP_INDEX_URL": "https://index.example/simple"}}}}

- `env` are variables that tell a session's tools what those of this machine are set to; `preset_variables` says which there may be.

Does not ask any tool and reads no file: `services.presets` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from coworkd.model.egress import EgressSettings
from coworkd.model.errors import InvalidParams
from coworkd.netpolicy.hosts import BadHost, canonical_host
from coworkd.netpolicy.patterns import Wrong, refuse_domain, split_pattern
from coworkd.netpolicy.preset_variables import VARIABLES, refuse_variable
from coworkd.netpolicy.schema import Check, Findings, Place, list_of, one_of, parsed, table, text, told
from coworkd.settings import BadFile, nearest
from coworkd.settings.json_lines import parse_json
from coworkd.settings.values import number

FORMAT = 1
MAX_PATTERNS = 256
"""Hosts of one preset in a table."""
STATIC: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("api.anthropic.com", "*.anthropic.com"),
    "github": ("github.com", "api.github.com", "codeload.github.com", "*.githubusercontent.com"),
    "rust": ("crates.io", "index.crates.io", "static.crates.io", "static.rust-lang.org"),
    "sentry": ("sentry.io", "*.sentry.io"),
}
"""Preset → hosts that are the same everywhere."""
RESOLVED = ("debian", "node", "python", "ubuntu")
"""Presets that are nothing without a table."""
_DISTRIBUTIONS = ("debian", "ubuntu")
NAMES = tuple(sorted({*STATIC, *RESOLVED}))


class ResolvedPreset(Struct, frozen=True, kw_only=True):
    """What one preset came to on this machine, and which files or tools said so."""

    hosts: tuple[str, ...]
    said_by: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    """Variables for the commands of a session that may reach it; none where the tools here go by their defaults."""


class PresetTable(Struct, frozen=True, kw_only=True):
    """What was found out on this machine; `made_at` is seconds since the epoch, 0 where nothing was."""

    made_at: float = 0.0
    presets: Mapping[str, ResolvedPreset] = {}

    def hosts(self, preset: str) -> tuple[str, ...]:
        """The patterns that `preset` stands for: those of everywhere, then those of here."""
        found = self.presets.get(preset)
        return tuple(dict.fromkeys((*STATIC.get(preset, ()), *(found.hosts if found is not None else ()))))


def parse_presets(data: bytes, *, file: str) -> PresetTable:
    """Read a table. Raises `BadFile` with everything that is wrong."""
    tree, lines = parse_json(data, file=file)
    findings = Findings(file, lines)
    _FILE(tree, findings.root)
    if findings.found:
        raise BadFile(findings.found)
    presets = {
        name: ResolvedPreset(
            hosts=tuple(preset["hosts"]), said_by=tuple(preset.get("from", ())), env=dict(preset.get("env", {}))
        )
        for name, preset in tree["presets"].items()
    }
    return PresetTable(made_at=float(tree.get("made_at", 0.0)), presets=presets)


def resolve(settings: EgressSettings, table: PresetTable) -> EgressSettings:
    """Return `settings` with what its presets stand for and set, and a warning for each that stands for nothing.

    Raises `InvalidParams` for a preset that does not exist.
    """
    found: dict[str, tuple[str, ...]] = {}
    env: dict[str, str] = {}
    warnings: list[str] = []
    for preset in settings.presets:
        if preset not in NAMES:
            close = nearest(preset, NAMES)
            hint = f"; did you mean {close!r}?" if close is not None else ""
            raise InvalidParams(f"{settings.source}: there is no preset {preset!r}{hint}", key="coworkd.presets")
        found[preset] = table.hosts(preset)
        if preset in table.presets:
            env.update(table.presets[preset].env)
        if not found[preset] and not _is_of_another_system(preset, settings.presets, table):
            warnings.append(
                f"coworkd.presets: {preset!r} allows nothing, for nobody found out its hosts on this machine; "
                "`coworkctl egress presets --write FILE` does"
            )
    told = tuple(dict.fromkeys((*settings.warnings, *warnings)))
    return replace(settings, preset_hosts=found, preset_env=env, warnings=told)


def _is_of_another_system(preset: str, presets: Sequence[str], table: PresetTable) -> bool:
    """Whether it is a distribution's, and this machine is of another that the settings name too."""
    return preset in _DISTRIBUTIONS and any(
        other in presets and bool(table.hosts(other)) for other in _DISTRIBUTIONS if other != preset
    )


def _refuse_host(entry: str) -> Wrong | None:
    """As `refuse_domain`, but a mirror of the house may have a name without a dot."""
    wrong = refuse_domain(entry, denied=False)
    if wrong is None:
        return None
    try:
        canonical_host(split_pattern(entry)[0])
    except BadHost:
        return wrong
    return None


def _hosts(value: object, place: Place) -> None:
    list_of(told(_refuse_host, "a host"))(value, place)
    if isinstance(value, list) and len(value) > MAX_PATTERNS:
        place.refuse(f"has more than {MAX_PATTERNS} hosts")


def _presets(value: object, place: Place) -> None:
    if not isinstance(value, dict):
        place.refuse("wants an object")
        return
    for name, preset in value.items():
        one_of(*NAMES)(name, place.below(name))
        _preset(name)(preset, place.below(name))


def _preset(name: str) -> Check:
    fields = {"hosts": _hosts, "from": list_of(text()), "env": _variables(name)}
    return table(fields, required=("hosts",), strict=True)


def _variables(preset: str) -> Check:
    """The variables that `preset` may set."""
    there_are = VARIABLES.get(preset, {})

    def check(value: object, place: Place) -> None:
        if not isinstance(value, dict):
            place.refuse("wants an object")
            return
        for name, one in value.items():
            wrong = refuse_variable(preset, name, one) if isinstance(one, str) else "wants text"
            if wrong is not None:
                place.below(name).refuse(wrong, None if name in there_are else nearest(name, there_are))

    return check


def _format(value: Any, place: Place) -> None:
    if isinstance(value, bool) or value != FORMAT:
        place.refuse(f"is not {FORMAT}, the only format there is; make the file again with this coworkctl")


_FIELDS: Mapping[str, Check] = {"format": _format, "made_at": parsed(number(0, 1e12)), "presets": _presets}
_FILE = table(_FIELDS, required=("format", "presets"), strict=True)
