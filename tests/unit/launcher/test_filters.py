from __future__ import annotations

import hashlib
import os

import pytest

from coworkd.launcher.filters import Filters


def name_of(program: bytes) -> str:
    return hashlib.sha256(program).hexdigest()


def test_a_program_is_read_from_its_start_by_everyone() -> None:
    filters = Filters()
    assert filters.put(name_of(b"8 bytes!"), b"8 bytes!")
    for _ in range(2):
        fd = filters.open(name_of(b"8 bytes!"))
        assert os.read(fd, 99) == b"8 bytes!"
        os.close(fd)


@pytest.mark.parametrize(
    ("name", "program"), [("0" * 64, bytes(8)), (name_of(bytes(7)), bytes(7)), (name_of(b""), b"")]
)
def test_what_is_not_what_its_name_says_is_not_kept(name: str, program: bytes) -> None:
    filters = Filters()
    assert not filters.put(name, program)
    assert name not in filters
    with pytest.raises(FileNotFoundError):
        filters.open(name)


def test_the_last_ones_put_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coworkd.launcher.filters.FILTER_LIMIT", 2)
    programs = [bytes([number] * 8) for number in range(3)]
    filters = Filters()
    for program in (programs[0], programs[1], programs[0], programs[2]):
        filters.put(name_of(program), program)
    assert [name_of(program) in filters for program in programs] == [True, False, True]
