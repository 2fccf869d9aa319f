"""Fuzz: keys, signatures, manifests and states of any bytes are read or refused, and nothing else; no path leads out."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from coworkd.release import slots
from coworkd.release.manifest import Manifest, parse_manifest
from coworkd.release.minisign import parse_public_keys, parse_signature, verify
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.slots import Slot, SlotState
from coworkd.release.store import STATE, read_state
from coworkd.release.versions import parse_version
from host_stub.release import compose_bytes
from host_stub.release_key import sign
from tests.unit.release.release_house import CODE, KEY, KEYS, FakeFiles, manifest_of

SIGNED = sign(b"data", KEY, comment="a comment")
GOOD = compose_bytes(manifest_of(CODE))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*json.loads(GOOD), "path", "x"]), inner)
    ),
    max_leaves=12,
)


def manifest_or_none(data: bytes) -> Manifest | None:
    try:
        return parse_manifest(data)
    except ReleaseRefused:
        return None


@st.composite
def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    """A few bytes other than they were."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@given(st.binary(max_size=400))
def test_any_bytes_are_keys_or_a_refusal(data: bytes) -> None:
    try:
        assert parse_public_keys(data)
    except ReleaseRefused:
        return


@given(flipped(SIGNED))
@example(SIGNED[:-1] + b"\r")
def test_no_other_signature_is_good(data: bytes) -> None:
    try:
        verify(b"data", parse_signature(data), KEYS)
    except ReleaseRefused:
        return
    # The first line is anybody's to write, and so is how a line ends.
    assert lines_of(data)[1:] == lines_of(SIGNED)[1:]


def lines_of(data: bytes) -> list[bytes]:
    return [line.removesuffix(b"\r") for line in data.removesuffix(b"\n").split(b"\n")]


@given(st.binary(max_size=400) | flipped(GOOD) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300)
def test_any_bytes_are_a_manifest_or_a_refusal(data: bytes) -> None:
    manifest = manifest_or_none(data)
    if manifest is not None:
        for file in manifest.files:
            parts = file.path.split("/")
            assert parts[0] in manifest.contents
            assert not {"", ".", ".."} & set(parts)


@given(st.text(max_size=30))
def test_any_text_is_a_version_or_a_refusal(text: str) -> None:
    try:
        assert len(parse_version(text)) == 4
    except ReleaseRefused:
        return


@given(st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_state_or_told(data: bytes) -> None:
    state, wrong = read_state(FakeFiles({STATE: data}))
    assert wrong or state.format == 1


@given(
    st.lists(
        st.sampled_from(["stage", "begin", "up", "commit", "leave", "settle", "boot", "spoil", "back"]), max_size=40
    )
)
@settings(max_examples=300)
def test_whatever_happens_what_is_tried_is_there_and_not_bad(steps: list[str]) -> None:
    state, boot = SlotState(), 1
    for version, step in enumerate(steps):
        name = slots.candidate(state)
        if step == "stage":
            free = slots.free_slot(state)
            assert free != state.chosen
            state = slots.stage(
                slots.clear(state, free), free, Slot(version=f"1.{version}", sha256=f"{version}", contents=("code",))
            )
        elif step == "begin" and name is not None:
            state = slots.begin(state, name, boot_id=str(boot))
        elif step == "up":
            state = slots.came_up(state)
        elif step == "commit" and state.attempt is not None:
            state = slots.commit(state, state.attempt.slot)
        elif step == "leave":
            state = slots.leave(state)
        elif step == "boot":
            boot += 1
        elif step == "settle":
            state = slots.settle(state, boot_id=str(boot))
        elif step == "spoil" and name is not None:
            state = slots.spoil(state, name, "a test")
        elif step == "back" and state.chosen != "0":
            state = slots.roll_back(state, None, "a test")
        name = slots.candidate(state)
        slot = None if name is None else state.slot(name)
        assert name is None or (slot is not None and slot.status != "bad")
