"""Policies: the layers on disk, loaded, compiled, and switched as a whole.

Invariants
- What holds is one `_State`, replaced by one assignment: a reload is all of the new or all of the old. Nothing
  of a set of files with a mistake in it is ever used.
- Every filter that any profile could need was compiled and checked before the state that names it holds; so `effective` only
  looks up: no I/O, no thread, no wait.
- `policy.reload` is durable in the audit log before the switch; if it cannot be written, nothing changes.
- Running commands keep the filters they started with; a session takes the new policy with its next command.

Does not decide anything: reading is `policy/`'s, compiling `seccomp/`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio
from msgspec import Struct

from coworkd.model.calls import EgressPresets, PolicyReloaded, PolicyShow, PresetShown
from coworkd.model.egress import EgressSettings, SessionEgress
from coworkd.model.errors import CoworkError, InvalidParams, NotFound, Unavailable
from coworkd.model.policy import EffectivePolicy, LimitsRequest, Profile, SeccompProgram
from coworkd.model.ports import AuditPort, EventPort
from coworkd.netpolicy.presets import NAMES as PRESET_NAMES
from coworkd.netpolicy.presets import STATIC, PresetTable, parse_presets, resolve
from coworkd.netpolicy.srt import parse_settings, parse_settings_map
from coworkd.policy import DEFAULT_PROFILE, Layer, PolicySet, flatten, load_policies, narrow
from coworkd.policy.layers import FOLDERS, is_passed_over
from coworkd.seccomp import compile_program, host_arch, host_kernel, load_base, load_oci
from coworkd.seccomp.egress_filter import load_egress_filter
from coworkd.services.policy_egress import compose_session_egress
from coworkd.settings import nearest
from coworkd.settings.tables import MAX_FILE_BYTES

MAX_REMEMBERED = 256
"""Results of `effective` that are kept; past it all are forgotten and made again when asked for."""
MAX_LAYER_FILES = 1024

NO_REQUEST = LimitsRequest()


class _State(Struct, frozen=True, kw_only=True):
    """One loaded set: its files' hashes, the programs by base and by seccomp name, and the settings of egress by name."""

    policies: PolicySet
    presets: PresetTable
    presets_file: str | None
    egress: Mapping[str, EgressSettings]
    egress_filter: SeccompProgram
    hashes: Mapping[str, str]
    base: Mapping[str, SeccompProgram]
    admin: Mapping[str, SeccompProgram]
    remembered: dict[tuple[str, LimitsRequest], EffectivePolicy]


class PolicyStore:
    """`SessionPolicyPort`, and what `policy.*` calls need. Made by `app`; `load` before anything else.

    `directories` are the layers, the lowest first; one that does not exist is an empty layer. `presets_file` is asked at
    each load which file tells what presets are on this machine; without one those that differ from machine to machine allow nothing.
    """

    def __init__(
        self,
        *,
        directories: Sequence[str],
        presets_file: Callable[[], str | None],
        cache_dir: str | None,
        audit: AuditPort,
        events: EventPort,
    ) -> None:
        self._directories = tuple(directories)
        self._presets_file = presets_file
        self._on_change: Callable[[], Awaitable[None]] = _nobody
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self._audit = audit
        self._events = events
        self._state: _State | None = None
        self._reloading = trio.Lock()

    def attach(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Say who is told after every reload that has changed something."""
        self._on_change = on_change

    async def load(self) -> None:
        """Load for the first time; recorded as `policy.load`. Raises like `reload`, and then there is no policy at all."""
        async with self._reloading:
            state = await self._read()
            with trio.CancelScope(shield=True):
                await self._audit.record("policy.load", _record(state, ()))
                self._state = state

    async def reload(self) -> PolicyReloaded:
        """Read the layers again and switch to them.

        Raises `BadFile` or another `InvalidParams` for what is wrong in a file, `InternalError` for a filter that failed
        its check, `DiskFailed` where the audit log cannot be written: in each case the old policy stays. A
        cancelled reload changes nothing either. Calls wait for each other.
        """
        async with self._reloading:
            old = self._loaded()
            try:
                state = await self._read()
            except CoworkError as error:
                await self._audit.record("policy.refused", _refusal(error))
                raise
            changed = _changed(old.hashes, state.hashes)
            # Shielded: a cancellation between the two would leave a record of a switch that never was.
            with trio.CancelScope(shield=True):
                await self._audit.record("policy.reload", _record(state, changed))
                self._state = state
        answer = PolicyReloaded(profiles=tuple(sorted(state.policies.profiles)), changed=changed)
        if changed:
            await self._on_change()
            self._events.publish("policy.changed", {"changed": list(changed), "profiles": list(answer.profiles)})
        return answer

    @property
    def profiles(self) -> tuple[str, ...]:
        """The names there are."""
        return tuple(sorted(self._loaded().policies.profiles))

    async def effective(self, profile: str | None, limits: LimitsRequest, /) -> EffectivePolicy:
        """See `PolicyPort`; None is the profile `default`. Raises `NotFound`, `PolicyDenied`, `InvalidParams`."""
        return self.effective_nowait(profile, limits)

    def effective_nowait(self, profile: str | None, limits: LimitsRequest = NO_REQUEST, /) -> EffectivePolicy:
        """`effective` without being a checkpoint."""
        state = self._loaded()
        key = (profile or DEFAULT_PROFILE, limits)
        known = state.remembered.get(key)
        if known is not None:
            return known
        narrowed, sentences = narrow(_find(state, key[0]), state.policies.ceiling, limits)
        made = EffectivePolicy(
            profile=narrowed,
            base_filter=state.base[narrowed.sandbox.base],
            admin_filter=state.admin[narrowed.sandbox.seccomp],
            egress=state.egress[narrowed.egress.settings],
            narrowed=sentences,
        )
        if len(state.remembered) >= MAX_REMEMBERED:
            state.remembered.clear()
        state.remembered[key] = made
        return made

    @property
    def egress_filter(self) -> SeccompProgram:
        """The filter of coworkd-egress itself."""
        return self._loaded().egress_filter

    def compose_egress(
        self, policy: EffectivePolicy, request: Mapping[str, Any] | None, /
    ) -> tuple[SessionEgress, tuple[str, ...]]:
        """See `SessionPolicyPort`."""
        upstream = policy.profile.egress.upstream
        if request is None:
            return compose_session_egress(policy.egress, upstream, None)
        asked = resolve(parse_settings_map(request, source="the host's settings"), self._loaded().presets)
        limits = tuple(request.get("coworkd", {}).get("limits", {}))
        return compose_session_egress(policy.egress, upstream, asked, limits=limits)

    def presets(self) -> EgressPresets:
        """See `SessionPolicyPort`."""
        state = self._loaded()
        return describe_presets(state.presets, state.presets_file)

    def show(self, params: PolicyShow) -> dict[str, Any]:
        """One profile as it holds without a request: values, where each was given, what was narrowed, the filters."""
        state = self._loaded()
        effective = self.effective_nowait(params.profile)
        shown = describe(state.policies, effective.profile, effective.narrowed)
        shown["filters"] = {
            name: {"sha256": program.sha256, "source": program.source, "instructions": len(program.bpf) // 8}
            for name, program in (("base", effective.base_filter), ("admin", effective.admin_filter))
        }
        return shown

    def _loaded(self) -> _State:
        if self._state is None:
            raise Unavailable("no policy is loaded; `coworkctl doctor` says why", stage="policy")
        return self._state

    async def _read(self) -> _State:
        presets_file = self._presets_file()  # it may have been made since
        return await trio.to_thread.run_sync(_read_and_compile, self._directories, presets_file, self._cache_dir)


def read_layer(directory: str) -> Layer:
    """Read one policy directory; blocking. One that does not exist is an empty layer.

    Raises `InvalidParams` for what cannot be read: a file passed over in silence would be a policy widened.
    """
    files: dict[str, bytes] = {}
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return Layer(root=directory, files={})
    except OSError as error:
        raise _unreadable(directory, error) from error
    for name in names:
        if is_passed_over(name):
            continue
        path = os.path.join(directory, name)
        if name in FOLDERS:
            _read_folder(path, name, files)
        elif os.path.isdir(path):
            files[f"{name}/"] = b""  # `find_strays` says that nobody reads it
        else:
            files[name] = _read_file(path)
    return Layer(root=directory, files=files)


def describe(policies: PolicySet, profile: Profile, narrowed: Sequence[str]) -> dict[str, Any]:
    """What `policy.show` tells of a profile after narrowing: the fields of `model.policy.Profile`, and beside them

    `profiles` (all names), `sources` (dotted key → `file:line`), `narrowed`, `ceiling` (dotted key → bound) and
    `ceiling_sources`. Plain maps and lists; sizes in bytes.
    """
    shown: dict[str, Any] = msgspec.to_builtins(profile)
    return {
        **shown,
        "profiles": sorted(policies.profiles),
        "sources": dict(policies.sources[profile.name]),
        "narrowed": list(narrowed),
        "ceiling": {key: _plain(value) for key, value in policies.ceiling.bounds.items()},
        "ceiling_sources": dict(policies.ceiling_sources),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_folder(path: str, folder: str, files: dict[str, bytes]) -> None:
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    for name in names:
        if not is_passed_over(name):
            files[f"{folder}/{name}"] = _read_file(os.path.join(path, name))
            if len(files) > MAX_LAYER_FILES:
                raise InvalidParams(
                    f"{path} has more than {MAX_LAYER_FILES} files; is it a policy directory?", path=path
                )


def _read_file(path: str) -> bytes:
    if os.path.exists(path) and not os.path.isfile(path):
        raise InvalidParams(f"{path} is no regular file; move it away", file=path)
    try:
        with open(path, "rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> InvalidParams:
    return InvalidParams(f"{path} cannot be read: {error.strerror}", file=path, errno=error.errno)


def _read_and_compile(directories: Sequence[str], presets_file: str | None, cache_dir: Path | None) -> _State:
    layers = [read_layer(directory) for directory in directories]
    policies = load_policies(layers)
    presets = read_presets(presets_file)
    arch, kernel = host_arch(), host_kernel()
    base = {name: compile_program(load_base(name, arch), cache_dir=cache_dir) for name in ("dev", "strict")}
    admin = {
        name: compile_program(load_oci(file.data, name=file.file, arch=arch, kernel=kernel), cache_dir=cache_dir)
        for name, file in policies.seccomp.items()
    }
    egress = {
        name: resolve(parse_settings(file.data, file=file.file), presets) for name, file in policies.egress.items()
    }
    return _State(
        policies=policies,
        presets=presets,
        presets_file=presets_file,
        egress=egress,
        egress_filter=compile_program(load_egress_filter(arch), cache_dir=cache_dir),
        hashes={**_hash(policies), "presets": hashlib.sha256(msgspec.json.encode(presets)).hexdigest()},
        base=base,
        admin=admin,
        remembered={},
    )


def read_presets(file: str | None) -> PresetTable:
    """What presets are on this machine; an empty table where nobody has found out. Raises `InvalidParams`, `BadFile`; blocking."""
    return PresetTable() if file is None else parse_presets(_read_file(file), file=file)


def describe_presets(presets: PresetTable, file: str | None) -> EgressPresets:
    """What `egress.presets` tells of them."""
    return EgressPresets(
        presets={name: _show_preset(presets, name) for name in PRESET_NAMES}, file=file, made_at=presets.made_at or None
    )


def _show_preset(presets: PresetTable, name: str) -> PresetShown:
    found = presets.presets.get(name)
    said_by = (*(("built in",) if name in STATIC else ()), *(found.said_by if found is not None else ()))
    return PresetShown(hosts=presets.hosts(name), made_from=said_by, env=dict(found.env) if found is not None else {})


async def _nobody() -> None:
    """Nobody is told of changes."""


def _find(state: _State, name: str) -> Profile:
    profile = state.policies.profiles.get(name)
    if profile is not None:
        return profile
    close = nearest(name, state.policies.profiles)
    hint = f"; did you mean {close!r}?" if close is not None else ""
    raise NotFound(f"there is no profile {name[:80]!r}{hint}", key="profile", profiles=sorted(state.policies.profiles))


def _hash(policies: PolicySet) -> dict[str, str]:
    """What can change → a hash of what it says: profiles as resolved, the ceiling, each JSON file's bytes."""
    said: dict[str, bytes] = {
        f"profiles/{name}": repr(flatten(profile)).encode() for name, profile in policies.profiles.items()
    }
    said["ceiling"] = repr(sorted(policies.ceiling.bounds.items())).encode()
    for folder, files in (("seccomp", policies.seccomp), ("egress", policies.egress)):
        said.update({f"{folder}/{name}": file.data for name, file in files.items()})
    return {name: hashlib.sha256(data).hexdigest() for name, data in said.items()}


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in {*old, *new} if old.get(name) != new.get(name)))


def _record(state: _State, changed: Sequence[str]) -> dict[str, Any]:
    whole = "".join(f"{name} {digest}\n" for name, digest in sorted(state.hashes.items()))
    return {
        "profiles": sorted(state.policies.profiles),
        "changed": list(changed),
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
    }


def _refusal(error: CoworkError) -> dict[str, Any]:
    details = {
        key: error.details[key] for key in ("file", "line", "key", "errno") if error.details.get(key) is not None
    }
    return {"code": error.code.value, "message": error.message, **details}
