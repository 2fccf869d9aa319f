"""`policy.narrow`: the narrowest wins, and nothing is cut in silence."""

from __future__ import annotations

import math

import pytest

from coworkd.model.errors import InvalidParams, PolicyDenied
from coworkd.model.policy import LimitsRequest
from coworkd.policy.ceiling import Ceiling
from coworkd.policy.keys import build_profile, flatten
from coworkd.policy.narrow import narrow, narrow_request, narrow_spool, narrow_timeout
from tests.unit.policy.test_keys import VALUES

PROFILE = build_profile("p", VALUES)
OPEN = Ceiling()
NOTHING = LimitsRequest()


def test_without_ceiling_and_request_the_profile_holds_and_nothing_is_told() -> None:
    assert narrow(PROFILE, OPEN, NOTHING) == (PROFILE, ())


@pytest.mark.parametrize(
    ("key", "bound", "expected"),
    [
        ("limits.nofile", 32, 32),
        ("limits.cpu_max", 0.5, 0.5),
        ("limits.timeout_s", 3600.0, 3600.0),
        ("egress.allow_max_s", 0.0, 0.0),
        ("sandbox.warm", 0, 0),
        ("sandbox.base", "strict", "strict"),
        ("sandbox.ask_delete", True, True),
        ("folders.modes", ("ro", "staged"), ("ro",)),
        ("folders.modes", (), ()),
    ],
)
def test_a_profile_above_the_ceiling_is_narrowed_and_told(key: str, bound: object, expected: object) -> None:
    narrowed, told = narrow(PROFILE, Ceiling({key: bound}), NOTHING)
    assert flatten(narrowed) == {**VALUES, key: expected}
    (sentence,) = told
    assert sentence.startswith(f"{key}: profile 'p' says ")


@pytest.mark.parametrize(
    ("key", "bound"),
    [
        ("limits.nofile", 65),
        ("limits.timeout_s", 0.0),
        ("sandbox.base", "dev"),
        ("sandbox.ask_delete", False),
        ("folders.allow_sockets", True),
        ("folders.modes", ("ro", "rwd", "staged")),
        ("sandbox.seccomp", ("default", "corp")),
        ("egress.upstream", ("direct",)),
        ("egress.allow_max_s", 61.0),
    ],
)
def test_a_ceiling_above_the_profile_changes_nothing(key: str, bound: object) -> None:
    assert narrow(PROFILE, Ceiling({key: bound}), NOTHING) == (PROFILE, ())


def test_allow_sockets_is_taken_away_by_the_ceiling() -> None:
    loose = build_profile("p", {**VALUES, "folders.allow_sockets": True})
    narrowed, told = narrow(loose, Ceiling({"folders.allow_sockets": False}), NOTHING)
    assert narrowed.folders.allow_sockets is False
    assert told == ("folders.allow_sockets: profile 'p' says true, the ceiling leaves false",)


@pytest.mark.parametrize("key", ["sandbox.seccomp", "egress.settings", "egress.upstream"])
def test_a_name_the_ceiling_does_not_list_is_denied(key: str) -> None:
    with pytest.raises(PolicyDenied, match="the ceiling allows corp") as caught:
        narrow(PROFILE, Ceiling({key: ("corp",)}), NOTHING)
    assert caught.value.details == {"key": key, "rule": f"ceiling {key}"}


def test_a_request_below_is_granted_in_silence() -> None:
    request = LimitsRequest(memory_max=50, pids_max=5, cpu_max=1.0, tmp_max=1, disk_max=2, nofile=64)
    narrowed, told = narrow(PROFILE, OPEN, request)
    assert told == ()
    limits = narrowed.limits
    assert (limits.memory_max_bytes, limits.pids_max, limits.cpu_max) == (50, 5, 1.0)
    assert (limits.tmp_max_bytes, limits.disk_max_bytes, limits.nofile) == (1, 2, 64)


def test_a_request_above_gets_what_is_allowed_and_is_told() -> None:
    narrowed, told = narrow(PROFILE, Ceiling({"limits.nofile": 60}), LimitsRequest(nofile=1000, memory_max=101))
    assert (narrowed.limits.nofile, narrowed.limits.memory_max_bytes) == (60, 100)
    assert told == (
        "limits.nofile: profile 'p' says 64, the ceiling leaves 60",
        "limits.memory_max: 101 was asked, 100 is what the policy allows",
        "limits.nofile: 1000 was asked, 60 is what the policy allows",
    )


@pytest.mark.parametrize(
    "request_",
    [
        LimitsRequest(memory_max=0),
        LimitsRequest(pids_max=-1),
        LimitsRequest(cpu_max=math.nan),
        LimitsRequest(cpu_max=math.inf),
        LimitsRequest(cpu_max=0.0),
        LimitsRequest(nofile=0),
        LimitsRequest(disk_max=2**63),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(request_: LimitsRequest) -> None:
    with pytest.raises(InvalidParams) as caught:
        narrow(PROFILE, OPEN, request_)
    assert str(caught.value.details["key"]).startswith("limits.")


@pytest.mark.parametrize(
    ("limit", "asked", "expected", "told"),
    [
        (0.0, None, 0.0, False),
        (0.0, 5.0, 5.0, False),
        (0.0, 0.0, 0.0, False),
        (60.0, None, 60.0, False),
        (60.0, 5.0, 5.0, False),
        (60.0, 61.0, 60.0, True),
        (60.0, 0.0, 60.0, True),
    ],
)
def test_timeout_of_zero_is_the_widest(limit: float, asked: float | None, expected: float, told: bool) -> None:
    profile = build_profile("p", {**VALUES, "limits.timeout_s": limit})
    seconds, sentence = narrow_timeout(profile, asked)
    assert seconds == expected
    assert (sentence is not None) is told


@pytest.mark.parametrize("asked", [-1.0, math.nan, math.inf, 1e12])
def test_timeout_that_cannot_be_meant_is_refused(asked: float) -> None:
    with pytest.raises(InvalidParams, match="not a number of seconds"):
        narrow_timeout(PROFILE, asked)


@pytest.mark.parametrize(
    ("asked", "kept", "told"),
    [(None, 65536, False), (1 << 20, 1 << 20, False), ((1 << 20) + 1, 1 << 20, True), (100_000, 100_000, False)],
)
def test_what_is_kept_of_a_stream_is_bounded_and_told(asked: int | None, kept: int, told: bool) -> None:
    limit_bytes, sentence = narrow_spool(PROFILE, asked, 65536)
    assert limit_bytes == kept
    assert (sentence is not None) == told


def test_the_usual_size_of_a_stream_is_bounded_too() -> None:
    assert narrow_spool(PROFILE, None, 1 << 30) == (1 << 20, None)


def test_a_command_has_the_narrower_of_what_its_session_and_its_request_say() -> None:
    kept, cut = narrow_request(
        LimitsRequest(memory_max=100 << 20, pids_max=10, nofile=5),
        LimitsRequest(memory_max=200 << 20, pids_max=5, cpu_max=1.5),
    )
    assert kept == LimitsRequest(memory_max=100 << 20, pids_max=5, cpu_max=1.5, nofile=5)
    assert cut == ("limits.memory_max: 200M was asked, the session has 100M",)


@pytest.mark.parametrize(
    ("own", "asked", "kept", "is_cut"),
    [(0, 5, 5, False), (5, 0, 5, True), (5, 4, 4, False), (5, 6, 5, True), (0, 0, 0, False), (None, 0, 0, False)],
)
def test_none_is_wider_than_any_number(own: int | None, asked: int, kept: int, is_cut: bool) -> None:
    result, cut = narrow_request(LimitsRequest(fsize_max=own), LimitsRequest(fsize_max=asked))
    assert (result.fsize_max, bool(cut)) == (kept, is_cut)
    assert not is_cut or "the session has 5" in cut[0]
