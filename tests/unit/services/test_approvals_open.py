"""`services.approvals_open`: a question's list, its revisions, and what is shown of it."""

from __future__ import annotations

from coworkd.services.approvals_open import Ask, Listing, OpenApproval
from coworkd.system.process_command import Identity
from tests.unit.services.approval_house import FakeFolder

WHO = Identity(7, 1)


def _open() -> OpenApproval:
    return OpenApproval("a1", FakeFolder(), "p1", asked_at=1.0, expires_at=2.0)


def test_each_path_is_counted_once() -> None:
    approval = _open()
    approval.add(Ask(1, b"a", WHO))
    approval.add(Ask(2, b"a", WHO))
    approval.add_listing(WHO, Listing((b"rm", b"a", b"b"), (b"a", b"b")))
    assert approval.paths() == (b"a", b"b")
    assert (approval.describe().count, approval.describe().waiting) == (2, 2)


def test_what_came_after_a_revision_is_not_of_it() -> None:
    approval = _open()
    approval.add(Ask(1, b"a", WHO))
    approval.tell(approval.untold)
    approval.add(Ask(2, b"b", WHO))
    assert [ask.number for ask in approval.waiting(1)] == [1]
    assert approval.untold == (2,)
    approval.add_listing(WHO, Listing((), (b"z",)))
    assert approval.listings(1) == {}
    approval.tell(approval.untold)
    assert [ask.number for ask in approval.waiting(2)] == [1, 2]
    assert list(approval.listings(2)) == [WHO]


def test_what_comes_while_it_is_told_is_told_next_time() -> None:
    approval = _open()
    approval.add(Ask(1, b"a", WHO))
    untold = approval.untold
    approval.add(Ask(2, b"b", WHO))
    approval.tell(untold)
    assert [ask.number for ask in approval.waiting(1)] == [1]
    assert approval.untold == (2,)


def test_who_was_not_looked_at_is_named_once() -> None:
    approval = _open()
    for number, who in enumerate((WHO, WHO, Identity(8, 1), None)):
        approval.add(Ask(number, b"a", who))
    assert list(approval.unseen) == [WHO, Identity(8, 1)]
    approval.add_listing(WHO, Listing(()))
    assert list(approval.unseen) == [Identity(8, 1)]


def test_what_is_shown_is_bounded_and_the_count_is_true() -> None:
    approval = _open()
    approval.add_listing(WHO, Listing((b"rm", b"x" * 5000), tuple(b"%d" % number for number in range(5000))))
    told = approval.describe()
    assert (len(told.paths), told.count, told.command) == (1000, 5000, (b"rm",))
    assert len(approval.describe(100).paths) < 15
