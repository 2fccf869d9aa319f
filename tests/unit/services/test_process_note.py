"""`services.process_note`: what comes back is what was kept, or nothing."""

from __future__ import annotations

import msgspec
import pytest

from coworkd.model.launch import NOTE_LIMIT_BYTES
from coworkd.services.process_note import ProcessNote, decode_note, encode_note

FULL = ProcessNote(
    on_full="drop_oldest", timeout_s=1e9, times_out_at=2e9, ended_by="timeout", kill_at=3e9, recorded=True
)


@pytest.mark.parametrize("note", [ProcessNote(), FULL])
def test_note_comes_back(note: ProcessNote) -> None:
    assert decode_note(encode_note(note)) == note


def test_no_bytes_say_nothing() -> None:
    assert decode_note(b"") == ProcessNote()


@pytest.mark.parametrize(
    "data",
    [b"\xc1", b"\x91", msgspec.msgpack.encode({"of_a_later_one": 1}), msgspec.msgpack.encode({"ended_by": "bored"})],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_note(data)


def test_the_fullest_note_fits() -> None:
    assert len(encode_note(FULL)) < NOTE_LIMIT_BYTES / 8
