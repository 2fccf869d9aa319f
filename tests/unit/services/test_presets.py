from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed
from coworkd.netpolicy.patterns import PatternIndex
from coworkd.netpolicy.presets import PresetTable, ResolvedPreset, parse_presets
from coworkd.services.presets import (
    MAX_HOSTS,
    compose_file,
    compose_pattern,
    resolve_presets,
    write_presets,
)
from tests.unit.system.settings_machine import Programs, machine, put

TABLE = PresetTable(
    made_at=5.0, presets={"python": ResolvedPreset(hosts=("index.example",), said_by=("/etc/pip.conf",))}
)


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("https://index.example/simple", "index.example"),
        ("https://user:hunter2@Index.Example:443/simple", "index.example"),
        ("http://index.example:80", "index.example"),
        ("http://index.example:8081/", "index.example:8081"),
        ("https://index.example:80/", "index.example:80"),
        ("https://index.example./", "index.example"),
        ("https://[2001:DB8::1]/", "2001:db8::1"),
        ("https://[2001:db8::1]:8443/", "[2001:db8::1]:8443"),
        ("https://198.51.100.7:8443/", "198.51.100.7:8443"),
        ("http://nexus:8081/simple", "nexus:8081"),
        ("https://*.example/", None),
        ("https://*/", None),
        ("https://a..example/", None),
        ("https://index.example:99999/", None),
        ("https://in dex.example/", None),
        ("https://", None),
        ("https://[::1/", None),
    ],
)
def test_of_a_url_only_the_host_is_taken(url: str, pattern: str | None) -> None:
    assert compose_pattern(url) == pattern


def test_each_pattern_matches_the_host_it_came_from() -> None:
    for url, host, port in [
        ("http://index.example:8081/", "index.example", 8081),
        ("https://[2001:db8::1]:8443/", "2001:db8::1", 8443),
        ("https://[2001:db8::1]/", "2001:db8::1", 443),
    ]:
        pattern = compose_pattern(url)
        assert pattern is not None
        assert PatternIndex([pattern]).find(host, port) == pattern
        assert PatternIndex([pattern]).find(f"sub.{host}", port) is None


@pytest.mark.parametrize("host", ["index.example", "nexus:8081", "2001:db8::1", "[2001:db8::1]:8443", "198.51.100.7:1"])
def test_what_is_written_can_be_read(host: str) -> None:
    table = PresetTable(made_at=5.0, presets={"node": ResolvedPreset(hosts=(host,), said_by=("a tool",))})
    assert parse_presets(compose_file(table), file="presets.json") == table


def test_everything_is_asked_and_told(tmp_path: Path) -> None:
    put(tmp_path, "/etc/os-release", "ID=ubuntu\n")
    put(
        tmp_path,
        "/etc/pip.conf",
        "[global]\nindex-url = https://u:p@py.example/\nextra-index-url = https://py.example/b\n",
    )
    put(tmp_path, "/etc/apt/sources.list", "deb http://apt.example/ubuntu jammy main\n")
    programs = Programs({"npm": '{"registry": "https://npm.example/"}'})
    resolved = resolve_presets(machine(tmp_path, programs=programs), clock=lambda: 7.0)
    assert resolved.table.presets == {
        "python": ResolvedPreset(
            hosts=("py.example",),
            said_by=("/etc/pip.conf",),
            env={"PIP_EXTRA_INDEX_URL": "https://py.example/b", "UV_INDEX": "https://py.example/b"},
        ),
        "node": ResolvedPreset(
            hosts=("npm.example",),
            said_by=("npm config get registry",),
            env={"NPM_CONFIG_REGISTRY": "https://npm.example/"},
        ),
        "ubuntu": ResolvedPreset(hosts=("apt.example",), said_by=("/etc/apt/sources.list",)),
    }
    assert resolved.table.made_at == 7.0
    assert resolved.notes == (
        "python: /etc/pip.conf: sessions are not told of an index that has a user or a password in its URL; "
        "`coworkctl session ensure --env` tells the sessions that may know it",
    )


def test_sessions_are_told_of_mirrors_as_they_are_set(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/etc/pip.conf",
        "[global]\nindex-url = http://nexus:8081/all/simple\ntrusted-host = nexus\n"
        "extra-index-url = https://b.example/s https://c.example/s file:///srv/simple https://b.example/s\n",
    )
    env = resolve_presets(machine(tmp_path)).table.presets["python"].env
    assert env == {
        "PIP_INDEX_URL": "http://nexus:8081/all/simple",
        "UV_DEFAULT_INDEX": "http://nexus:8081/all/simple",
        "PIP_EXTRA_INDEX_URL": "https://b.example/s https://c.example/s",
        "UV_INDEX": "https://b.example/s https://c.example/s",
        "PIP_TRUSTED_HOST": "nexus:8081",
    }


def test_sessions_are_not_told_of_what_their_preset_does_not_allow(tmp_path: Path) -> None:
    many = " ".join(f"https://h{number}.example/" for number in range(MAX_HOSTS + 1))
    put(tmp_path, "/etc/pip.conf", f"[global]\nindex-url = https://a.example/\nextra-index-url = {many}\n")
    resolved = resolve_presets(machine(tmp_path))
    told = resolved.table.presets["python"].env["PIP_EXTRA_INDEX_URL"].split()
    assert (told[-1], len(told)) == (f"https://h{MAX_HOSTS - 2}.example/", MAX_HOSTS - 1)
    assert any("not told of an index that leads where the preset does not" in note for note in resolved.notes)


def test_a_value_that_would_be_too_long_is_told_and_left_out(tmp_path: Path) -> None:
    long = " ".join(f"https://a.example/{letter * 1100}" for letter in "xy")
    put(tmp_path, "/etc/pip.conf", f"[global]\nindex-url = https://a.example/\nextra-index-url = {long}\n")
    resolved = resolve_presets(machine(tmp_path))
    assert set(resolved.table.presets["python"].env) == {"PIP_INDEX_URL", "UV_DEFAULT_INDEX"}
    assert "python: PIP_EXTRA_INDEX_URL would have more than 2048 characters; sessions are not told of it" in (
        resolved.notes
    )


def test_what_comes_to_nothing_is_left_out_and_told(tmp_path: Path) -> None:
    put(tmp_path, "/etc/pip.conf", "[global]\nindex-url = http://in dex/simple\nfind-links = file:///srv/wheels\n")
    resolved = resolve_presets(machine(tmp_path))
    assert resolved.table.presets == {}
    assert [note.partition(":")[0] for note in resolved.notes] == ["debian, ubuntu", "python", "node"]


def test_hosts_are_bounded(tmp_path: Path) -> None:
    many = " ".join(f"https://h{number}.example/" for number in range(MAX_HOSTS + 5))
    put(tmp_path, "/etc/pip.conf", f"[global]\nindex-url = https://h0.example/\nextra-index-url = {many}\n")
    resolved = resolve_presets(machine(tmp_path))
    assert len(resolved.table.presets["python"].hosts) == MAX_HOSTS
    assert any(f"more than {MAX_HOSTS} hosts" in note for note in resolved.notes)


def test_the_file_has_its_form() -> None:
    assert json.loads(compose_file(TABLE)) == {
        "format": 1,
        "made_at": 5.0,
        "presets": {"python": {"hosts": ["index.example"], "from": ["/etc/pip.conf"]}},
    }
    told = ResolvedPreset(hosts=("index.example",), env={"PIP_INDEX_URL": "https://index.example/"})
    table = PresetTable(presets={"python": told})
    assert parse_presets(compose_file(table), file="presets.json") == table


def test_the_file_is_put_in_place_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "share" / "coworkd" / "presets.json"
    write_presets(str(path), TABLE)
    write_presets(str(path), TABLE)
    assert path.read_bytes() == compose_file(TABLE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["presets.json"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "presets.json").mkdir()
    with pytest.raises(DiskFailed, match="cannot be written"):
        write_presets(str(tmp_path / "presets.json"), TABLE)
    assert os.listdir(tmp_path) == ["presets.json"]
