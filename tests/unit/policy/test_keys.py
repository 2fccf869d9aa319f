"""`policy.keys`: the table of keys and the `Profile` it makes."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.model.policy import Profile
from coworkd.policy.keys import CEILING_KEYS, PROFILE_KEYS, REQUIRED_KEYS, build_profile, flatten
from coworkd.settings import BadValue

VALUES: dict[str, Any] = {
    "sandbox.base": "dev",
    "sandbox.seccomp": "default",
    "sandbox.warm": 1,
    "sandbox.ask_delete": False,
    "limits.memory_max": 100,
    "limits.memory_high": 90,
    "limits.swap_max": 0,
    "limits.pids_max": 10,
    "limits.cpu_max": 4.0,
    "limits.cpu_weight": 100,
    "limits.io_weight": 100,
    "limits.tmp_max": 200,
    "limits.disk_max": 300,
    "limits.nofile": 64,
    "limits.fsize_max": 0,
    "limits.cpu_time_s": 0,
    "limits.core_max": 0,
    "limits.spool_max": 1 << 20,
    "limits.timeout_s": 0.0,
    "folders.modes": ("ro", "rwd"),
    "folders.allow_sockets": False,
    "egress.settings": "default",
    "egress.upstream": "direct",
    "egress.allow_max_s": 60.0,
}


def test_build_and_flatten_are_inverses() -> None:
    made = build_profile("p", VALUES)
    assert isinstance(made, Profile)
    assert flatten(made) == VALUES
    assert made.limits.memory_max_bytes == 100


def test_every_key_of_a_profile_is_one_of_the_ceilings_but_inherits() -> None:
    assert set(REQUIRED_KEYS) == set(CEILING_KEYS) == set(PROFILE_KEYS) - {"inherits"} == set(VALUES)


@pytest.mark.parametrize("way", ["direct", "host", "http://proxy:3128", "http://[::1]:3128", "socks5h://p.example/"])
def test_upstream_takes_the_ways_there_are(way: str) -> None:
    assert PROFILE_KEYS["egress.upstream"](way) == way


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("Direct", "not a way out"),
        ("proxy:3128", "not a way out"),
        ("http://proxy:0", "not a way out"),
        ("http://proxy:99999", "not a way out"),
        ("http://proxy/path", "not a way out"),
        ("socks5://proxy:1", "not a way out"),
        ("https://proxy:1", "not a way out"),
        ("http://user:secret@proxy:1", "password"),
        (1, "wants text"),
    ],
)
def test_upstream_refuses_others(way: object, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        PROFILE_KEYS["egress.upstream"](way)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits.pids_max", 4_194_305),
        ("limits.nofile", 1_048_577),
        ("limits.cpu_max", 0.009),
        ("limits.timeout_s", -1),
        ("limits.memory_max", 0),
        ("limits.memory_high", 0),
        ("limits.swap_max", -1),
        ("limits.cpu_weight", 0),
        ("limits.io_weight", 10_001),
        ("limits.fsize_max", "1g"),
        ("limits.cpu_time_s", 1.5),
        ("limits.core_max", True),
        ("sandbox.warm", 9),
    ],
)
def test_values_the_kernel_would_refuse_are_refused(key: str, value: object) -> None:
    with pytest.raises(BadValue):
        PROFILE_KEYS[key](value)
