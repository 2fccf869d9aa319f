"""`services.approvals_grants`: answers that hold for a while, and the pace of asking."""

from __future__ import annotations

from coworkd.services.approvals_grants import BURST, GRANTS, ONCE_S, Grants, Pace
from coworkd.system.process_command import Identity
from tests.unit.services.approval_house import FakeFolder

WHO = Identity(7, 1)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_grant_is_of_its_paths_its_command_and_its_folder() -> None:
    grants, folder = Grants(_Clock()), FakeFolder()
    grants.add(folder, WHO, allow=True, paths=frozenset({b"a"}), trees=())
    assert grants.look(folder, WHO, b"a/b") is None
    assert grants.look(folder, Identity(7, 2), b"a") is None
    assert grants.look(folder, None, b"a") is None
    assert grants.look(FakeFolder(), WHO, b"a") is None
    assert grants.look(folder, WHO, b"a") is True
    assert grants.look(folder, WHO, b"a") is None  # it was once


def test_a_tree_is_meant_with_all_below() -> None:
    grants, folder = Grants(_Clock()), FakeFolder()
    grants.add(folder, WHO, allow=True, paths=frozenset(), trees=(b"d",))
    assert grants.look(folder, WHO, b"d") is grants.look(folder, WHO, b"d/x/y") is True
    assert grants.look(folder, WHO, b"dd") is None
    grants.add(folder, WHO, allow=True, paths=frozenset(), trees=(b"",))
    assert grants.look(folder, WHO, b"dd") is True


def test_a_name_where_something_else_stands_is_allowed_no_more() -> None:
    for path in (b"d/a", b"d", b"", b"t/x/y", b"t"):
        grants, folder = Grants(_Clock()), FakeFolder()
        grants.add(folder, WHO, allow=True, paths=frozenset({b"d/a"}), trees=(b"t",))
        for other in (b"d/b", b"d/a/x", b"e", b"tt"):
            grants.replaced(folder, other)
        grants.replaced(FakeFolder(), path)
        assert grants.look(folder, WHO, b"t/z") is True
        grants.replaced(folder, path)
        assert grants.look(folder, WHO, b"d/a") is grants.look(folder, WHO, b"t/z") is None


def test_a_refusal_stays_whatever_stands_there() -> None:
    grants, folder = Grants(_Clock()), FakeFolder()
    grants.add(folder, WHO, allow=False, paths=frozenset({b"a"}), trees=())
    grants.replaced(folder, b"a")
    assert grants.look(folder, WHO, b"a") is False


def test_what_is_refused_goes_before_what_is_allowed() -> None:
    grants, folder = Grants(_Clock()), FakeFolder()
    grants.add(folder, WHO, allow=False, paths=frozenset({b"a"}), trees=())
    grants.add(folder, WHO, allow=True, paths=frozenset({b"a", b"b"}), trees=())
    assert grants.look(folder, WHO, b"a") is False
    assert grants.look(folder, WHO, b"b") is True


def test_a_grant_ends_with_its_time_and_with_its_folder() -> None:
    clock = _Clock()
    grants, folder = Grants(clock), FakeFolder()
    grants.add(folder, WHO, allow=True, paths=frozenset({b"a"}), trees=())
    clock.now = ONCE_S + 1
    assert grants.look(folder, WHO, b"a") is None
    grants.add(folder, WHO, allow=True, paths=frozenset({b"a"}), trees=())
    grants.allow_folder(folder)
    assert grants.look(folder, None, b"z") is True
    grants.drop(folder)
    assert grants.look(folder, WHO, b"a") is None


def test_grants_are_bounded_and_the_oldest_go() -> None:
    grants, folder = Grants(_Clock()), FakeFolder()
    for pid in range(GRANTS + 1):
        grants.add(folder, Identity(pid, 1), allow=True, paths=frozenset({b"a"}), trees=())
    assert grants.look(folder, Identity(0, 1), b"a") is None
    assert grants.look(folder, Identity(GRANTS, 1), b"a") is True


def test_a_session_may_ask_so_often_and_gets_some_back_with_time() -> None:
    clock = _Clock()
    pace = Pace(clock)
    assert all(pace.take("bob") for _ in range(int(BURST)))
    assert not pace.take("bob")
    assert pace.take("alice")
    clock.now = 2.5
    assert [pace.take("bob") for _ in range(3)] == [True, True, False]
    pace.give_back("bob")
    assert pace.take("bob")
    pace.give_back("nobody")
