"""`services.policies`: loading from disk, reloading as a whole, and the quick way to an effective policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from coworkd.config import find_vendor_policies
from coworkd.model.calls import PolicyReloaded, PolicyShow
from coworkd.model.errors import DiskFailed, InvalidParams, NotFound, PolicyDenied, Unavailable
from coworkd.model.event import Event
from coworkd.model.policy import LimitsRequest, Profile
from coworkd.services.policies import MAX_REMEMBERED, PolicyStore, read_layer
from coworkd.settings import BadFile
from tests.unit.policy.policy_layers import VENDOR_FILES

NOTHING = LimitsRequest()
INDEX = '{"hosts": ["index.example"], "from": ["/etc/pip.conf"], "env": {"PIP_INDEX_URL": "https://index.example/"}}'
PRESETS = f'{{"format": 1, "made_at": 5, "presets": {{"python": {INDEX}}}}}'


class Audit:
    """Remembers records; `full` is a disk without room. `on_record` runs inside, before the record counts as durable."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.full = False
        self.on_record: Callable[[], None] = lambda: None

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        await trio.lowlevel.checkpoint()
        self.on_record()
        if self.full:
            raise DiskFailed("no space left")
        self.records.append((kind, dict(fields)))


class Events:
    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []

    def publish(self, name: str, params: Mapping[str, Any], /) -> Event:
        self.published.append((name, dict(params)))
        return Event(seq=len(self.published), at=0.0, name=name, params=dict(params))


class Scene:
    """A vendor's and an admin's directory on disk, and a store over them."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.vendor, self.admin = root / "vendor", root / "admin"
        for path, text in VENDOR_FILES.items():
            self.write(self.vendor / path, text)
        self.presets_file: str | None = str(root / "presets.json")
        self.write(root / "presets.json", PRESETS)
        self.audit, self.events = Audit(), Events()
        self.store = PolicyStore(
            directories=[str(self.vendor), str(self.admin)],
            presets_file=lambda: self.presets_file,
            cache_dir=str(cache),
            audit=self.audit,
            events=self.events,
        )

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def write_admin(self, path: str, text: str) -> None:
        self.write(self.admin / path, text)

    def load(self) -> PolicyStore:
        trio.run(self.store.load)
        return self.store

    def reload(self) -> PolicyReloaded:
        return trio.run(self.store.reload)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of compiled filters for all tests: compiling is the slow part."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def scene(tmp_path: Path, cache: Path) -> Scene:
    return Scene(tmp_path, cache)


def test_load_is_recorded_and_gives_checked_filters(scene: Scene) -> None:
    store = scene.load()
    effective = store.effective_nowait(None)
    assert effective.profile.name == "default"
    assert effective.base_filter.source == "base:dev"
    assert len(effective.base_filter.bpf) % 8 == 0
    assert effective.admin_filter.bpf
    ((kind, fields),) = scene.audit.records
    assert kind == "policy.load"
    assert fields["profiles"] == ["default"]


def test_nothing_is_to_be_had_before_load(scene: Scene) -> None:
    with pytest.raises(Unavailable):
        scene.store.effective_nowait(None)
    with pytest.raises(Unavailable):
        scene.reload()


def test_load_of_a_bad_set_leaves_no_policy(scene: Scene) -> None:
    scene.write_admin("profiles/default.toml", "[limits]\nnofile = 0\n")
    with pytest.raises(BadFile):
        scene.load()
    with pytest.raises(Unavailable):
        scene.store.effective_nowait(None)


def test_effective_is_remembered_and_needs_no_checkpoint(scene: Scene) -> None:
    store = scene.load()
    request = LimitsRequest(nofile=10)

    async def ask_twice() -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()  # a checkpoint would end this block before it returns
            return await store.effective(None, request) is await store.effective("default", request)
        return False

    assert trio.run(ask_twice)
    assert store.effective_nowait(None, request).profile.limits.nofile == 10


def test_what_is_remembered_is_bounded(scene: Scene) -> None:
    store = scene.load()
    for number in range(1, MAX_REMEMBERED + 10):
        store.effective_nowait(None, LimitsRequest(nofile=number))
    assert store._state is not None
    assert len(store._state.remembered) <= MAX_REMEMBERED


def test_effective_tells_what_was_narrowed(scene: Scene) -> None:
    effective = scene.load().effective_nowait(None, LimitsRequest(nofile=100_000))
    assert effective.profile.limits.nofile == 4096
    assert effective.narrowed == ("limits.nofile: 100000 was asked, 4096 is what the policy allows",)


def test_an_unknown_profile_is_not_found_with_the_nearest_name(scene: Scene) -> None:
    with pytest.raises(NotFound, match="did you mean 'default'"):
        scene.load().effective_nowait("defalt")


def test_a_profile_the_ceiling_forbids_is_denied_and_others_are_not(scene: Scene) -> None:
    scene.write_admin("ceiling.toml", '[egress]\nupstream = ["host"]\n')
    scene.write_admin("profiles/vm.toml", 'inherits = "default"\n[egress]\nupstream = "host"\n')
    store = scene.load()
    with pytest.raises(PolicyDenied, match=r"egress\.upstream"):
        store.effective_nowait("default")
    assert store.effective_nowait("vm").profile.egress.upstream == "host"


def test_the_ceiling_forces_the_strict_base_filter(scene: Scene) -> None:
    scene.write_admin("ceiling.toml", '[sandbox]\nbase = "strict"\n')
    assert scene.load().effective_nowait(None).base_filter.source == "base:strict"


def test_reload_tells_what_changed_and_publishes_it(scene: Scene) -> None:
    store = scene.load()
    scene.write_admin("profiles/default.toml", "[limits]\nnofile = 10\n")
    scene.write_admin("profiles/small.toml", 'inherits = "default"\n')
    answer = scene.reload()
    assert answer.profiles == ("default", "small")
    assert answer.changed == ("profiles/default", "profiles/small")
    assert store.effective_nowait("small").profile.limits.nofile == 10
    assert scene.events.published == [
        ("policy.changed", {"changed": ["profiles/default", "profiles/small"], "profiles": ["default", "small"]})
    ]
    assert scene.audit.records[-1][0] == "policy.reload"
    assert scene.audit.records[-1][1]["changed"] == ["profiles/default", "profiles/small"]


def test_presets_that_were_found_out_since_are_taken_at_a_reload(scene: Scene) -> None:
    made, scene.presets_file = scene.presets_file, None
    scene.load()
    before = scene.store.presets()
    assert (before.file, before.presets["python"].hosts) == (None, ())
    assert before.presets["rust"].made_from == ("built in",)
    scene.presets_file = made
    assert scene.reload().changed == ("presets",)
    after = scene.store.presets()
    assert (after.file, after.made_at) == (made, 5.0)
    assert after.presets["python"].hosts == ("index.example",)
    assert after.presets["python"].made_from == ("/etc/pip.conf",)
    assert after.presets["python"].env == {"PIP_INDEX_URL": "https://index.example/"}


def test_reload_of_the_same_files_is_recorded_and_changes_nothing(scene: Scene) -> None:
    scene.load()
    assert scene.reload().changed == ()
    assert scene.events.published == []
    assert [kind for kind, _ in scene.audit.records] == ["policy.load", "policy.reload"]


def test_the_record_is_durable_before_the_switch(scene: Scene) -> None:
    store = scene.load()
    scene.write_admin("profiles/default.toml", "[limits]\nnofile = 10\n")
    seen: list[int] = []
    scene.audit.on_record = lambda: seen.append(store.effective_nowait(None).profile.limits.nofile)
    scene.reload()
    assert seen == [4096]
    assert store.effective_nowait(None).profile.limits.nofile == 10


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("profiles/default.toml", "[limits]\nnofile = 'many'\n"),
        ("profiles/x.toml", 'inherits = "y"\n'),
        ("ceiling.toml", "[limits]\nnofil = 1\n"),
        ("ceilling.toml", ""),
        ("notes/x.toml", ""),
        ("egress/default.json", '{"network": {"allowedDomains": ["*.com"], "deniedDomains": []}}'),
        ("seccomp/default.json", '{"defaultAction": "SCMP_ACT_ALOW"}'),
        ("seccomp/other.json", '{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_ALLOW"}'),
    ],
)
def test_a_reload_with_a_mistake_keeps_the_old_policy(scene: Scene, path: str, text: str) -> None:
    store = scene.load()
    before = store.effective_nowait(None)
    scene.write_admin(path, text)
    scene.write_admin("profiles/good.toml", 'inherits = "default"\n')
    with pytest.raises(InvalidParams) as caught:
        scene.reload()
    assert str(caught.value.details["file"]).startswith(str(scene.admin))
    assert store.effective_nowait(None) is before
    assert store.profiles == ("default",)
    assert scene.audit.records[-1][0] == "policy.refused"
    assert scene.events.published == []


def test_a_reload_that_cannot_be_recorded_keeps_the_old_policy(scene: Scene) -> None:
    store = scene.load()
    scene.write_admin("profiles/default.toml", "[limits]\nnofile = 10\n")
    scene.audit.full = True
    with pytest.raises(DiskFailed):
        scene.reload()
    assert store.effective_nowait(None).profile.limits.nofile == 4096


def test_the_audit_log_admits_the_records(scene: Scene) -> None:
    from coworkd.auditlog.kinds import admit

    scene.load()
    scene.write_admin("profiles/x.toml", "a = 1\n")
    with pytest.raises(BadFile):
        scene.reload()
    (scene.admin / "profiles" / "x.toml").unlink()
    scene.reload()
    for kind, fields in scene.audit.records:
        assert admit(kind, fields).keys() == fields.keys()


def test_show_tells_values_sources_and_filters(scene: Scene) -> None:
    scene.write_admin("profiles/default.toml", "[limits]\nnofile = 10\n")
    scene.write_admin("ceiling.toml", "[limits]\npids_max = 7\n")
    shown = scene.load().show(PolicyShow())
    profile = msgspec.convert(shown, Profile)
    assert (profile.name, profile.limits.nofile, profile.limits.pids_max) == ("default", 10, 7)
    assert shown["sources"]["limits.nofile"] == f"{scene.admin}/profiles/default.toml:2"
    assert shown["ceiling"] == {"limits.pids_max": 7}
    assert shown["narrowed"] == ["limits.pids_max: profile 'default' says 1024, the ceiling leaves 7"]
    assert set(shown["filters"]) == {"base", "admin"}
    msgspec.msgpack.encode(shown)


def test_the_shipped_policies_load_and_say_what_the_design_says(cache: Path) -> None:
    store = PolicyStore(
        directories=[find_vendor_policies()],
        presets_file=lambda: None,
        cache_dir=str(cache),
        audit=Audit(),
        events=Events(),
    )
    trio.run(store.load)
    default, strict = store.effective_nowait(None), store.effective_nowait("strict")
    assert (default.narrowed, strict.narrowed) == ((), ())
    limits = default.profile.limits
    assert (limits.memory_max_bytes, limits.pids_max, limits.cpu_max) == (2800 << 20, 1024, 4.0)
    assert (limits.tmp_max_bytes, limits.disk_max_bytes, limits.nofile, limits.timeout_s) == (1 << 30, 5 << 30, 4096, 0)
    assert default.profile.folders.modes == ("ro", "rw", "rwd", "staged")
    assert default.profile.egress.upstream == "direct"
    assert default.base_filter.source == "base:dev"
    assert strict.base_filter.source == "base:strict"
    assert strict.profile.limits.memory_max_bytes < limits.memory_max_bytes


def test_read_layer_passes_over_what_is_no_policy(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_bytes(b"1")
    (tmp_path / "profiles" / "a.toml~").write_bytes(b"2")
    assert read_layer(str(tmp_path)).files == {"profiles/a.toml": b"1"}


def test_read_layer_of_nothing_is_empty(tmp_path: Path) -> None:
    assert read_layer(str(tmp_path / "absent")).files == {}


def test_read_layer_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").symlink_to(tmp_path / "gone")
    with pytest.raises(InvalidParams, match="cannot be read"):
        read_layer(str(tmp_path))
    (tmp_path / "profiles" / "a.toml").unlink()
    (tmp_path / "profiles" / "a.toml").mkdir()
    with pytest.raises(InvalidParams, match="no regular file"):
        read_layer(str(tmp_path))


def test_read_layer_refuses_a_file_in_a_folders_place(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("")
    with pytest.raises(InvalidParams, match="cannot be read"):
        read_layer(str(tmp_path))
