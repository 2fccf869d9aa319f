import pytest

from coworkd.folderfs.names import ORIGINS, Identity, OwnNames

ONE, TWO = Identity(1, 10), Identity(2, 20)


def test_what_was_made_is_own_until_it_goes() -> None:
    names = OwnNames()
    assert names.add((b"a", b"b"), ONE)
    assert names.get((b"a", b"b")) == ONE
    assert names.get((b"a",)) is None
    assert names.is_known((b"a",))
    assert names.remove((b"a", b"b"))
    assert not names.is_known((b"a",))
    assert names.count == 0


def test_the_folder_itself_is_never_own() -> None:
    names = OwnNames()
    assert not names.add((), ONE)
    assert names.get(()) is None
    assert not names.remove(())


@pytest.mark.parametrize(
    ("other", "same"), [((1, 10), True), ((1, 11), False), ((2, 10), False), ((1, 0), False), ((2, 0), False)]
)
def test_an_identity_is_inode_and_birth(other: tuple[int, int], same: bool) -> None:
    assert ONE.is_same(*other) is same


def test_an_identity_without_birth_is_the_inode_of_a_file_system_that_keeps_none() -> None:
    assert Identity(1, 0).is_same(1, 0)
    assert not Identity(1, 0).is_same(1, 99)  # another file system by now


def test_a_path_that_no_command_can_name_counts_as_the_users() -> None:
    names = OwnNames()
    assert names.add((b"x" * 255,) * 16, ONE)
    assert not names.add((b"d",) * 2049, ONE)
    names.move((b"x" * 255,), (b"y" * 255, b"z"), None)
    assert names.get((b"y" * 255, b"z", *(b"x" * 255,) * 15)) == ONE
    assert list(names) == []


def test_what_lies_below_goes_along() -> None:
    names = OwnNames()
    names.add((b"d",), ONE)
    names.add((b"d", b"f"), TWO)
    names.move((b"d",), (b"e", b"x"), ONE)
    assert list(names) == [((b"e", b"x"), ONE), ((b"e", b"x", b"f"), TWO)]
    names.remove((b"e",))
    assert list(names) == []
    assert names.count == 0


def test_a_users_name_renamed_over_an_own_one_makes_it_the_users() -> None:
    names = OwnNames()
    names.add((b"own",), ONE)
    names.move((b"users",), (b"own",), None)
    assert names.get((b"own",)) is None
    assert names.count == 0


def test_a_users_directory_keeps_what_is_own_in_it() -> None:
    names = OwnNames()
    names.add((b"d", b"f"), ONE)
    names.move((b"d",), (b"e",), None)
    assert list(names) == [((b"e", b"f"), ONE)]
    assert names.count == 1


def test_an_exchange_swaps_what_lies_below() -> None:
    names = OwnNames()
    names.add((b"a", b"f"), ONE)
    names.add((b"b",), TWO)
    names.swap((b"a",), (b"b",), None, None)
    assert list(names) == [((b"b", b"f"), ONE)]
    assert names.count == 1
    names.swap((b"b",), (b"c",), None, None)
    assert list(names) == [((b"c", b"f"), ONE)]


def test_too_many_are_the_users() -> None:
    names = OwnNames(limit=2)
    assert names.add((b"a",), ONE)
    assert names.add((b"b",), ONE)
    assert not names.add((b"c",), ONE)
    assert names.get((b"c",)) is None
    assert names.add((b"a",), TWO), "made anew it is one and the same name"


def test_disowned_is_the_users_and_what_is_below_stays() -> None:
    names = OwnNames()
    names.add((b"d",), ONE)
    names.add((b"d", b"f"), TWO)
    names.disown((b"d",))
    names.disown((b"nothing",))
    assert list(names) == [((b"d", b"f"), TWO)]
    names.disown((b"d", b"f"))
    assert not names.is_known((b"d",))


def test_where_a_users_name_came_from_is_remembered() -> None:
    names = OwnNames()
    names.moved_away((b"a",), (b"b",), ONE)
    names.moved_away((b"b",), (b"c",), ONE)
    assert names.origin((b"b",), 1, 10) is None
    assert names.origin((b"c",), 1, 10) == (b"a",)
    assert names.origin((b"c",), 2, 20) is None, "another file by that name"
    names.moved_away((b"c",), (b"a",), ONE)
    assert names.origin((b"a",), 1, 10) is None, "back where it was"


def test_only_the_last_origins_are_remembered() -> None:
    names = OwnNames()
    for number in range(ORIGINS + 1):
        names.moved_away((b"%d" % number,), (b"to-%d" % number,), ONE)
    assert names.origin((b"to-0",), 1, 10) is None
    assert names.origin((b"to-%d" % ORIGINS,), 1, 10) == (b"%d" % ORIGINS,)
    names.forget_origin((b"to-%d" % ORIGINS,))
    assert names.origin((b"to-%d" % ORIGINS,), 1, 10) is None
