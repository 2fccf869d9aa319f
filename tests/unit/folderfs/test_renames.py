import pytest

from coworkd.folderfs import renames as renames_module
from coworkd.folderfs.renames import Renames

A, B, C, D = (b"a",), (b"b",), (b"c",), (b"d",)


def test_what_was_never_renamed_has_no_other_name() -> None:
    assert Renames().before(A) is None


def test_the_first_name_counts() -> None:
    renames = Renames()
    renames.add(A, B)
    renames.add(B, C)
    assert (renames.before(C), renames.before(B)) == (A, None)
    renames.add(C, A)
    assert renames.before(A) is None


def test_what_lies_below_was_below() -> None:
    renames = Renames()
    renames.add(A, (b"d", b"x"))
    renames.add(D, C)
    assert renames.before((b"c", b"x")) == A
    assert renames.before((b"c", b"y", b"z")) == (b"d", b"y", b"z")


def test_what_is_made_anew_is_forgotten() -> None:
    renames = Renames()
    renames.add(A, B)
    renames.forget(B)
    assert renames.before(B) is None


def test_an_exchange_takes_the_names_along() -> None:
    renames = Renames()
    renames.add(A, B)
    renames.swap(B, C)
    assert (renames.before(C), renames.before(B)) == (A, C)
    renames.swap(B, C)
    assert (renames.before(B), renames.before(C)) == (A, None)


def test_a_circle_ends() -> None:
    renames = Renames()
    renames.add(A, (b"b", b"x"))
    renames.add((b"b", b"y"), A)
    assert renames.before(A) == (b"b", b"y")
    assert renames.before((b"b", b"x")) == A
    renames.swap(C, D)
    assert renames.before((b"c", b"x")) == (b"d", b"x")
    renames.add((b"c", b"e"), C)
    assert renames.before((b"c", b"x")) is not None


def test_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames_module, "RENAMES", 2)
    renames = Renames()
    for name in (b"1", b"2", b"3"):
        renames.add((name,), (b"new" + name,))
    assert renames.before((b"new1",)) is None
    assert renames.before((b"new3",)) == (b"3",)
