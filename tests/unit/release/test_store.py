"""What is written whatever happens, and what is believed of it. The power is cut at every step, in every way the disk may then look."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from coworkd.release import slots, store
from coworkd.release.manifest import MANIFEST, SIGNATURE, Here
from coworkd.release.minisign import PublicKey
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.slots import Slot, SlotState
from coworkd.release.store import NEW, STATE, STATE_LIMIT_BYTES, copy, read_offer, read_state, verify, write_state
from coworkd.system.slot_files import HeldFiles
from host_stub.release_key import sign
from tests.unit.release.release_house import (
    CODE,
    HERE,
    KEY,
    KEYS,
    OTHER_KEY,
    FakeFiles,
    PowerCut,
    release,
    tree_of,
    write_release,
)

OLD = release({**CODE, "code/coworkd/app.py": b"old" * 900})
UPDATE = release({**CODE, "code/coworkd/more.py": b"", "policies/egress/default.json": b"{}"}, version="1.2")


def why(files: dict[str, bytes], keys: tuple[PublicKey, ...] = KEYS, here: Here = HERE) -> str:
    with pytest.raises(ReleaseRefused) as refused:
        verify(FakeFiles(tree_of(files)), "", keys, here)
    return refused.value.why


def slot_of(files: dict[str, bytes], version: str) -> Slot:
    return Slot(version=version, sha256=hashlib.sha256(files[MANIFEST]).hexdigest(), contents=("code",))


# -- what is believed ---------------------------------------------------------------------------------------------


def test_a_whole_release_is_taken() -> None:
    offer = verify(FakeFiles(tree_of(UPDATE)), "", KEYS, HERE)
    assert (offer.manifest.version, offer.key) == ("1.2", KEY.public.name)


def test_it_is_taken_below_a_directory_too() -> None:
    assert verify(FakeFiles(tree_of(UPDATE, "a")), "a", KEYS, HERE).manifest.version == "1.2"


def test_each_byte_of_each_file_counts() -> None:
    for path, data in UPDATE.items():
        for place in {0, len(data) // 2, len(data) - 1} if data else ():
            flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            # The first line of a signature is anybody's to write.
            if path == SIGNATURE and place < data.index(b"\n"):
                continue
            assert why({**UPDATE, path: flipped}) in ("tampered", "bad_signature", "malformed", "wrong_key"), (
                path,
                place,
            )


def test_each_file_that_is_missing_is_missed() -> None:
    for path in UPDATE:
        left = {name: data for name, data in UPDATE.items() if name != path}
        assert why(left) == ("unsigned" if path in (MANIFEST, SIGNATURE) else "missing_file")


def test_each_file_that_is_cut_short_is_refused() -> None:
    for path in CODE:
        assert why({**UPDATE, path: UPDATE[path][:-1]}) == "wrong_size"
        assert why({**UPDATE, path: UPDATE[path] + b"."}) == "wrong_size"


@pytest.mark.parametrize(
    "path", ["code/coworkd/x.py", "code/coworkd/__pycache__/app.pyc", "policies/more.json", "bin/x", "x"]
)
def test_a_file_nobody_signed_for_is_refused(path: str) -> None:
    assert why({**UPDATE, path: b""}) == "extra_file"


def test_an_empty_directory_nobody_signed_for_is_refused() -> None:
    tree = {**tree_of(UPDATE), "code/empty": None}
    with pytest.raises(ReleaseRefused) as refused:
        verify(FakeFiles(tree), "", KEYS, HERE)
    assert refused.value.why == "extra_file"


def test_what_mkfs_puts_on_a_disk_is_left_alone() -> None:
    verify(FakeFiles({**tree_of(UPDATE), "lost+found": None}), "", KEYS, HERE)


def test_a_release_by_another_key_is_refused() -> None:
    assert why(release(key=OTHER_KEY)) == "wrong_key"


def test_a_signature_of_another_release_is_refused() -> None:
    assert why({**UPDATE, SIGNATURE: OLD[SIGNATURE]}) == "bad_signature"


def test_a_signed_manifest_that_breaks_a_rule_is_refused() -> None:
    assert why(release(name="other")) == "malformed"


def test_a_release_for_another_guest_is_refused() -> None:
    assert why(UPDATE, here=structs.replace(HERE, architecture="aarch64", image_version="1.2")) == "not_newer"
    assert why(release(architecture="aarch64")) == "wrong_architecture"


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "socket_name"])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    write_release(tmp_path, UPDATE)
    path = tmp_path / "code" / "coworkd" / "more.py"
    path.unlink()
    if kind == "symlink":
        path.symlink_to("app.py")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    with HeldFiles(str(tmp_path)) as files, pytest.raises(ReleaseRefused) as refused:
        verify(files, "", KEYS, HERE)
    assert refused.value.why == "not_a_file"


def test_a_manifest_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    write_release(tmp_path / "real", UPDATE)
    write_release(tmp_path / "disk", {path: data for path, data in UPDATE.items() if path != MANIFEST})
    (tmp_path / "disk" / MANIFEST).symlink_to(tmp_path / "real" / MANIFEST)
    with HeldFiles(str(tmp_path / "disk")) as files, pytest.raises(ReleaseRefused) as refused:
        verify(files, "", KEYS, HERE)
    assert refused.value.why == "unreadable"


# -- the state ----------------------------------------------------------------------------------------------------


def test_no_state_is_an_empty_one() -> None:
    assert read_state(FakeFiles()) == (SlotState(), "")


def test_a_state_comes_back_as_it_was() -> None:
    state = slots.commit(slots.stage(SlotState(), "a", slot_of(OLD, "1.1")), "a")
    files = FakeFiles()
    write_state(files, state)
    assert read_state(files) == (state, "")
    assert list(files.tree) == [STATE]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2}',
        b'{"format": 1, "more": 1}',
        b"\xff",
        b" " * 300_000,
        b'{"format": 1, "floor": "newest"}',
        b'{"format": 1, "a": {"version": "1", "sha256": "", "contents": []}}',
    ],
)
def test_a_damaged_state_is_told_and_taken_as_empty(data: bytes) -> None:
    state, wrong = read_state(FakeFiles({STATE: data}))
    assert state == SlotState()
    assert STATE in wrong


def test_a_state_that_could_not_be_read_back_is_not_written() -> None:
    files = FakeFiles()
    write_state(files, SlotState())
    with pytest.raises(OSError, match="more than"):
        write_state(files, SlotState(floor="1." + "0" * STATE_LIMIT_BYTES))
    assert read_state(files) == (SlotState(), "")


# -- copying, and the power ---------------------------------------------------------------------------------------


def test_a_copy_is_the_release_and_nothing_else() -> None:
    files = FakeFiles({"b/old": b"", "b": None, f"{NEW}/half": b"", NEW: None})
    source = FakeFiles({**tree_of(UPDATE), "lost+found": None})
    copy(source, files, read_offer(source, "", KEYS), "b")
    assert files.tree == tree_of(UPDATE, "b")
    assert files.durable == files.tree
    assert not files.unsynced


def test_what_is_refused_on_the_way_leaves_nothing() -> None:
    source = FakeFiles(tree_of({**UPDATE, "code/coworkd/app.py": b"y" * 3000}))
    files = FakeFiles()
    with pytest.raises(ReleaseRefused) as refused:
        copy(source, files, read_offer(source, "", KEYS), "a")
    assert refused.value.why == "tampered"
    assert files.tree == {}


def test_a_manifest_that_changes_meanwhile_is_refused() -> None:
    source = FakeFiles(tree_of(UPDATE))
    offer = read_offer(source, "", KEYS)
    source.tree[MANIFEST] = (source.tree[MANIFEST] or b"") + b" "
    with pytest.raises(ReleaseRefused) as refused:
        copy(source, FakeFiles(), offer, "a")
    assert refused.value.why == "tampered"


def update(files: FakeFiles) -> None:
    """The whole of an update, as coworkd and its worker make it."""
    state, _ = read_state(files)
    name = slots.free_slot(state)
    write_state(files, slots.clear(state, name))
    source = FakeFiles(tree_of(UPDATE))
    copy(source, files, read_offer(source, "", KEYS), name)
    write_state(files, slots.stage(slots.clear(state, name), name, slot_of(UPDATE, "1.2")))


def before() -> FakeFiles:
    """1.1 runs from `b` and is committed; `a` holds an older one."""
    files = FakeFiles({**tree_of(OLD, "a"), **tree_of(OLD, "b")})
    state = structs.replace(SlotState(), a=slot_of(OLD, "1.1"), b=slot_of(OLD, "1.1"), chosen="b")
    write_state(files, slots.commit(state, "b"))
    return FakeFiles(files.tree)


def test_the_power_can_go_at_every_step() -> None:
    done = before()
    update(done)
    assert cut_everywhere(update, done.steps) == {"1.1", "1.2"}


def judge_after_cut(tree: dict[str, bytes | None]) -> str:
    """Old or new, and whole; and the same update goes through afterwards."""
    after = FakeFiles(tree)
    state, wrong = read_state(after)
    assert wrong == ""
    name = slots.candidate(state)
    assert name is not None
    chosen = state.slot(name)
    assert chosen is not None
    offer = verify(after, name, KEYS, HERE)
    assert (offer.sha256, offer.manifest.version) == (chosen.sha256, chosen.version)
    if chosen.version == "1.1":
        update(after)
        again, _ = read_state(after)
        assert again.chosen == "a"
        assert verify(after, "a", KEYS, HERE).manifest.version == "1.2"
    return chosen.version


def test_the_test_of_power_cuts_sees_a_switch_that_is_made_too_early() -> None:
    """Its own proof: where the state is written before the content is durable, it fails."""

    def hasty(files: FakeFiles) -> None:
        state, _ = read_state(files)
        source = FakeFiles(tree_of(UPDATE))
        write_state(files, slots.stage(slots.clear(state, "a"), "a", slot_of(UPDATE, "1.2")))
        copy(source, files, read_offer(source, "", KEYS), "a")

    done = before()
    hasty(done)
    with pytest.raises((AssertionError, ReleaseRefused)):
        cut_everywhere(hasty, done.steps)


def cut_everywhere(act: Callable[[FakeFiles], None], steps: int) -> set[str]:
    """Which versions were there afterwards."""
    seen: set[str] = set()
    for cut_at in range(steps):
        files = FakeFiles(before().tree, cut_at=cut_at)
        with pytest.raises(PowerCut):
            act(files)
        seen.update(judge_after_cut(tree) for tree in files.after_cut())
    return seen


def test_a_release_that_was_signed_anew_is_another() -> None:
    data = UPDATE[MANIFEST].replace(b'"1.2"', b'"1.3"')
    again = {**UPDATE, MANIFEST: data, SIGNATURE: sign(data, KEY, comment="x")}
    assert verify(FakeFiles(tree_of(again)), "", KEYS, HERE).sha256 != slot_of(UPDATE, "1.2").sha256
    assert store.STATE_NEW != STATE
