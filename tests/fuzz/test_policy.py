"""Any bytes give a value or a typed error; narrowing never widens."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.config import Config, parse_config
from coworkd.model.errors import InvalidParams, PolicyDenied
from coworkd.model.policy import LimitsRequest, Profile
from coworkd.netpolicy.srt import parse_settings
from coworkd.policy import Ceiling, Layer, flatten, load_policies, narrow, parse_profile, tell_kind
from coworkd.policy.keys import NONE_IS_ZERO, build_profile
from coworkd.settings.json_lines import parse_json
from coworkd.settings.lines import scan_toml
from tests.unit.policy.policy_layers import PROFILE, SRT, VENDOR_FILES
from tests.unit.policy.test_keys import VALUES

EXAMPLES = settings(max_examples=150, deadline=None)

SCRAPS = st.sampled_from(
    [
        *(
            "[limits]",
            "[sandbox]\n",
            "nofile",
            "memory_max",
            " = ",
            "\n",
            '"""',
            "'''",
            '"',
            "'",
            "[",
            "]",
            "{",
            "}",
            ",",
        ),
        *("1", "-1", "0", "nan", "inf", "true", '"1G"', '"default"', "inherits", ".", "#", "\\", "\r\n", "1e400", "\0"),
        *('"network"', '"allowedDomains"', ":", "null", "NaN", '"filesystem"', '"defaultAction"', '["*.com"]', "é"),
    ]
)
TEXTS = st.lists(SCRAPS, max_size=30).map("".join)
BYTES = st.one_of(
    TEXTS.map(str.encode),
    st.binary(max_size=200),
    st.tuples(st.integers(0, len(PROFILE)), TEXTS).map(lambda cut: (PROFILE[: cut[0]] + cut[1]).encode()),
    st.tuples(st.integers(0, len(SRT)), TEXTS).map(lambda cut: (SRT[: cut[0]] + cut[1] + SRT[cut[0] :]).encode()),
)


def refusal_of(call: Callable[[], object]) -> InvalidParams | PolicyDenied | None:
    """How `call` refuses, None where it does not. Anything else it raises fails the test."""
    try:
        call()
    except (InvalidParams, PolicyDenied) as error:
        return error
    return None


@EXAMPLES
@given(BYTES)
def test_any_bytes_are_a_policy_or_a_typed_error_that_names_the_file(data: bytes) -> None:
    for read in (parse_profile, parse_settings, parse_json, tell_kind):
        refused = refusal_of(lambda read=read: read(data, file="some.json"))  # type: ignore[misc]
        if refused is not None:
            assert refused.details["file"] == "some.json"
            assert 1 <= refused.details["line"] <= data.count(b"\n") + 1


@EXAMPLES
@given(BYTES)
def test_any_bytes_are_a_configuration_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(InvalidParams):
        assert isinstance(parse_config(data, file="f"), Config)


@EXAMPLES
@given(
    st.dictionaries(
        st.sampled_from(["profiles/a.toml", "profiles/default.toml", "ceiling.toml", "egress/a.json", "x"]), BYTES
    )
)
def test_any_admin_layer_gives_whole_profiles_or_a_typed_error(files: dict[str, bytes]) -> None:
    vendor = Layer(root="/v", files={path: text.encode() for path, text in VENDOR_FILES.items()})
    layers = [vendor, Layer(root="/a", files=files)]
    refused = refusal_of(lambda: load_policies(layers))
    if refused is not None:
        assert str(refused.details["file"]).startswith("/a/")
    else:
        assert all(isinstance(profile, Profile) for profile in load_policies(layers).profiles.values())


@EXAMPLES
@given(st.text(max_size=200) | TEXTS)
def test_scan_of_any_text_ends_and_stays_within_its_lines(text: str) -> None:
    found = scan_toml(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.first.values())


@EXAMPLES
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    ).map(lambda inner: {"root": inner}),
    st.sampled_from([None, 0, 2]),
)
def test_every_key_of_any_json_has_the_line_it_stands_on(tree: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(tree, indent=indent)
    lines = text.split("\n")
    read, found = parse_json(text.encode(), file="f")
    assert read == tree
    assert found.repeats == []
    for path, line in found.first.items():
        if isinstance(path[-1], str):
            assert json.dumps(path[-1]) + ":" in lines[line - 1]


SIZES = st.integers(1, 2**40)
WEIGHTS = st.integers(1, 10_000)
NUMBERS = {
    "limits.memory_max": SIZES,
    "limits.memory_high": SIZES,
    "limits.swap_max": st.integers(0, 2**40),
    "limits.cpu_weight": WEIGHTS,
    "limits.io_weight": WEIGHTS,
    "limits.fsize_max": st.integers(0, 5),
    "limits.cpu_time_s": st.integers(0, 5),
    "limits.core_max": st.integers(0, 5),
    "limits.spool_max": st.integers(65536, 65541),
    "limits.pids_max": st.integers(1, 5000),
    "limits.cpu_max": st.floats(0.01, 64),
    "limits.tmp_max": SIZES,
    "limits.disk_max": SIZES,
    "limits.nofile": st.integers(1, 5000),
    "limits.timeout_s": st.sampled_from([0.0, 1.0, 60.0, 3600.0]),
    "sandbox.warm": st.integers(0, 8),
}
MODES = st.lists(st.sampled_from(["ro", "rw", "rwd", "staged"]), unique=True).map(tuple)
FLAGS = {
    "sandbox.base": st.sampled_from(["dev", "strict"]),
    "sandbox.ask_delete": st.booleans(),
    "folders.allow_sockets": st.booleans(),
    "folders.modes": MODES,
}
NAMES = st.lists(st.sampled_from(["default", "direct", "other"]), unique=True).map(tuple)
PROFILES = st.fixed_dictionaries({**NUMBERS, **FLAGS}).map(lambda some: build_profile("p", {**VALUES, **some}))
CEILINGS = st.fixed_dictionaries(
    {}, optional={**NUMBERS, **FLAGS, "sandbox.seccomp": NAMES, "egress.upstream": NAMES}
).map(Ceiling)
REQUESTS = st.builds(
    LimitsRequest,
    memory_max=st.none() | SIZES,
    pids_max=st.none() | st.integers(1, 5000),
    cpu_max=st.none() | st.floats(0.01, 64),
    tmp_max=st.none() | SIZES,
    disk_max=st.none() | SIZES,
    nofile=st.none() | st.integers(1, 5000),
    memory_high=st.none() | SIZES,
    swap_max=st.none() | st.integers(0, 2**40),
    cpu_weight=st.none() | WEIGHTS,
    fsize_max=st.none() | st.integers(0, 5),
    cpu_time_s=st.none() | st.integers(0, 5),
)


def width(key: str, value: Any) -> Any:
    """Something `<=` compares, where more means wider."""
    if key in NONE_IS_ZERO:
        return value or math.inf
    if key == "sandbox.base":
        return value == "dev"
    if key == "sandbox.ask_delete":
        return not value
    return frozenset(value) if isinstance(value, tuple) else value


@settings(max_examples=300, deadline=None)
@given(PROFILES, CEILINGS, REQUESTS)
def test_narrow_never_widens_and_cuts_nothing_in_silence(
    profile: Profile, ceiling: Ceiling, request: LimitsRequest
) -> None:
    before = flatten(profile)
    refused = refusal_of(lambda: narrow(profile, ceiling, request))
    if refused is not None:
        key = refused.details["key"]
        assert before[key] not in ceiling.bounds[key]
        return
    narrowed, told = narrow(profile, ceiling, request)
    after = flatten(narrowed)
    for key, value in after.items():
        asked = getattr(request, key.partition(".")[2], None) if key.startswith("limits.") else None
        if key in ("sandbox.seccomp", "egress.settings", "egress.upstream"):
            assert value == before[key]
            assert value in ceiling.bounds.get(key, (value,))
            continue
        assert width(key, value) <= width(key, before[key])
        if key in ceiling.bounds:
            assert width(key, value) <= width(key, ceiling.bounds[key])
        if asked is not None:
            assert width(key, value) <= width(key, asked)
        wanted = before[key] if asked is None else asked
        assert value == wanted or any(sentence.startswith(f"{key}: ") for sentence in told)
