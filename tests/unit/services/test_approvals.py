"""`services.approvals`: who is asked about which deletes, and what an answer is good for."""

from __future__ import annotations

import pytest
import trio

from coworkd.model.errors import DiskFailed, InvalidParams, InvalidState, NotFound
from coworkd.model.folder import Asked
from coworkd.services.approvals import OPEN_LIMIT
from tests.unit.services.approval_house import TIMEOUT_S, FakeFolder, approval_house, gathered, settle
from tests.unit.services.process_house import in_trio, jump


@in_trio
async def test_what_waits_at_the_same_time_is_one_question() -> None:
    async with approval_house() as house:
        asks = [house.ask(b"a"), house.ask(b"b"), house.ask(b"c", pid=8)]
        await gathered()
        (told,) = house.told("approval.requested")
        assert (told["session"], told["process"], told["folder"]) == ("bob", "p1", "f")
        assert (told["paths"], told["count"], told["waiting"]) == ((b"a", b"b", b"c"), 3, 3)
        assert house.audit.fields("approval.request")["paths"] == (b"a", b"b", b"c")
        assert (await house.answer("once")).count == 3
        assert house.folder.decided == dict.fromkeys(asks, True)
        assert house.audit.fields("approval.answer")["answer"] == "once"
        assert house.audit.fields("approval.answer")["link"] == "link"
        assert [told["answer"] for told in house.told("approval.closed")] == ["once"]
        assert await house.open() == ()


@in_trio
async def test_other_processes_and_folders_are_other_questions() -> None:
    async with approval_house() as house:
        other = FakeFolder(folder="g")
        for process, folder in (("p1", house.folder), ("p2", house.folder), (None, house.folder), ("p1", other)):
            house.ask(b"a", process=process, folder=folder)
        await gathered()
        assert len(house.told("approval.requested")) == len(await house.open()) == 4
        assert len(await house.open("nobody")) == 0


@in_trio
async def test_what_was_renamed_is_shown_by_its_old_name_too() -> None:
    async with approval_house() as house:
        asked = Asked(ask=1, action="delete", path=b"tmp/x", pid=7, at=house.clock(), was=b"letter")
        house.approvals.asked(house.folder, asked, "p1")
        await gathered()
        (approval,) = await house.open()
        assert (approval.paths, approval.waiting) == ((b"tmp/x", b"letter"), 1)


@in_trio
async def test_a_file_that_stands_there_again_is_asked_about() -> None:
    async with approval_house() as house:
        house.commands[7] = (b"rm", b"a", b"b")
        house.ask(b"a")
        await gathered()
        await house.answer("once")
        assert house.folder.decided[house.ask(b"b")] is True
        again = [house.ask(b"a"), house.ask(b"b")]
        await gathered()
        assert not house.folder.decided.keys() & set(again)
        assert [each.waiting for each in await house.open()] == [2]


@in_trio
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("renames", [1, 2000])
async def test_what_is_put_at_an_allowed_name_later_is_asked_about(before: bool, renames: int) -> None:
    async with approval_house() as house:
        house.commands[7] = (b"rm", b"a", b"b", b"c")
        house.ask(b"a")
        await gathered()

        def rename() -> None:
            for number in range(renames):
                house.approvals.replaced(house.folder, b"b" if renames == 1 else b"other-%d" % number)

        if before:
            rename()
        await house.answer("once")
        if not before:
            house.approvals.replaced(house.folder, b"b")
        later = house.ask(b"b")
        await gathered()
        assert later not in house.folder.decided
        assert [each.paths[0] for each in await house.open()] == [b"b"]


@in_trio
async def test_nothing_is_asked_before_it_is_recorded() -> None:
    async with approval_house() as house:
        house.audit.full = {"approval.request"}
        ask = house.ask(b"a")
        await gathered()
        assert house.folder.decided == {ask: False}
        assert house.told("approval.requested") == []
        assert await house.open() == ()


@in_trio
async def test_an_answer_that_is_not_recorded_is_none() -> None:
    async with approval_house() as house:
        ask = house.ask(b"a")
        await gathered()
        (asked,) = await house.open()
        house.audit.full = {"approval.answer"}
        with pytest.raises(DiskFailed):
            await house.answer("once")
        assert house.folder.decided == {}
        assert await house.open() == (asked,)
        house.audit.full = set()
        await house.answer("once")
        assert house.folder.decided == {ask: True}


@in_trio
async def test_a_refusal_holds_without_its_record() -> None:
    async with approval_house() as house:
        ask = house.ask(b"a")
        await gathered()
        house.audit.full = {"approval.answer"}
        assert (await house.answer("deny")).count == 1
        assert house.folder.decided == {ask: False}


@in_trio
async def test_nobody_answers_and_it_is_refused() -> None:
    async with approval_house() as house:
        ask = house.ask(b"a")
        await gathered()
        (asked,) = await house.open()
        jump(TIMEOUT_S)
        await settle()
        assert house.folder.decided == {ask: False}
        assert [told["answer"] for told in house.told("approval.closed")] == ["timeout"]
        assert house.audit.fields("approval.answer")["answer"] == "timeout"
        with pytest.raises(InvalidState, match="nobody answered in time"):
            await house.answer("once", asked.approval)


@in_trio
async def test_its_time_goes_by_while_an_answer_that_fails_is_recorded() -> None:
    async with approval_house() as house:
        ask = house.ask(b"a")
        await gathered()
        (asked,) = await house.open()
        house.audit.full = {"approval.answer"}
        jump(TIMEOUT_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle)
            with pytest.raises((DiskFailed, InvalidState)):
                await house.answer("once", asked.approval)
        await settle()
        assert house.folder.decided == {ask: False}
        assert await house.open() == ()


@in_trio
async def test_of_two_answers_the_first_counts() -> None:
    async with approval_house() as house:
        ask = house.ask(b"a")
        await gathered()
        (asked,) = await house.open()
        outcomes: list[str] = []

        async def answer(word: str) -> None:
            try:
                await house.answer(word, asked.approval)
                outcomes.append(word)
            except InvalidState as error:
                outcomes.append(error.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, "once")
            await trio.lowlevel.checkpoint()
            nursery.start_soon(answer, "deny")
        done = [outcome for outcome in outcomes if outcome in ("once", "deny")]
        assert len(done) == 1
        assert house.folder.decided == {ask: done == ["once"]}
        assert house.audit.kinds.count("approval.answer") == 1


@in_trio
async def test_an_approval_that_never_was_is_not_found() -> None:
    async with approval_house() as house:
        with pytest.raises(NotFound, match="list those that are open"):
            await house.answer("once", "a0")


@in_trio
async def test_who_asked_has_died_and_nothing_is_deleted() -> None:
    async with approval_house() as house:
        first, second = house.ask(b"a"), house.ask(b"b")
        await gathered()
        house.approvals.withdrawn(house.folder, first)
        assert (await house.open())[0].paths == (b"b",)
        house.approvals.withdrawn(house.folder, second)
        assert await house.open() == ()
        assert house.told("approval.closed")[0]["answer"] == "withdrawn"
        assert house.folder.decided == {}
        house.approvals.withdrawn(house.folder, second)


@in_trio
async def test_what_is_told_twice_counts_once() -> None:
    async with approval_house() as house:
        ask = house.ask(b"a")
        again = Asked(ask=ask, action="delete", path=b"a", pid=7, at=house.clock())
        house.approvals.asked(house.folder, again, "p1")
        await gathered()
        assert (await house.open())[0].waiting == 1


@in_trio
async def test_a_list_that_grows_is_told_again_and_an_answer_is_about_what_was_seen() -> None:
    async with approval_house() as house:
        first = house.ask(b"a")
        await gathered()
        (seen,) = await house.open()
        second = house.ask(b"b")
        await gathered()
        assert [told["revision"] for told in house.told("approval.requested")] == [1, 2]
        assert {told["approval"] for told in house.told("approval.requested")} == {seen.approval}
        await house.answer("once", seen.approval, revision=1)
        assert house.folder.decided == {first: True}
        await gathered()
        (left,) = await house.open()
        assert (left.paths, left.revision) == ((b"b",), 1)
        assert left.approval != seen.approval
        await house.answer("deny")
        assert house.folder.decided == {first: True, second: False}


@in_trio
async def test_an_answer_is_never_about_what_was_not_told_yet() -> None:
    async with approval_house() as house:
        first = house.ask(b"a")
        await gathered()
        late = house.ask(b"b")
        await house.answer("once")
        assert house.folder.decided == {first: True}
        await gathered()
        assert (await house.open())[0].paths == (b"b",)
        assert late not in house.folder.decided


@in_trio
@pytest.mark.parametrize("revision", [0, -1, 2])
async def test_a_revision_that_was_never_shown_is_refused(revision: int) -> None:
    async with approval_house() as house:
        house.ask(b"a")
        await gathered()
        with pytest.raises(InvalidParams, match="revision"):
            await house.answer("once", revision=revision)
        assert len(await house.open()) == 1


# -- what a command is about to delete ---------------------------------------------------------------------------


@in_trio
async def test_of_rm_the_list_has_what_it_is_about_to_delete() -> None:
    async with approval_house() as house:
        house.commands[7] = (b"rm", b"-r", b"d", b"e")
        house.folder.below = {b"d": (b"d/x", b"d/y")}
        first = house.ask(b"d/x")
        await gathered()
        (asked,) = await house.open()
        assert asked.paths == (b"d/x", b"d/y", b"d", b"e")
        assert (asked.count, asked.waiting, asked.command) == (4, 1, (b"rm", b"-r", b"d", b"e"))
        await house.answer("once")
        granted = [house.ask(path) for path in (b"d/y", b"d", b"e")]
        assert house.folder.decided == dict.fromkeys([first, *granted], True)
        house.ask(b"other")
        house.ask(b"e", pid=8)
        await gathered()
        assert {path for each in await house.open() for path in each.paths} >= {b"other", b"e"}


@in_trio
async def test_once_ends_with_its_time() -> None:
    async with approval_house() as house:
        house.commands[7] = (b"rm", b"a", b"b")
        house.ask(b"a")
        await gathered()
        await house.answer("once")
        jump(601)
        late = house.ask(b"b")
        assert late not in house.folder.decided


@in_trio
async def test_what_is_refused_stays_refused_for_its_command_for_a_while() -> None:
    async with approval_house() as house:
        house.commands[7] = (b"rm", b"a", b"b")
        asks = [house.ask(b"a")]
        await gathered()
        await house.answer("deny")
        asks.append(house.ask(b"b"))
        assert house.folder.decided == dict.fromkeys(asks, False)
        jump(61)
        late = house.ask(b"b")
        assert late not in house.folder.decided


@in_trio
async def test_a_session_answer_holds_until_the_folder_is_mounted_anew() -> None:
    async with approval_house() as house:
        asks = [house.ask(b"a")]
        await gathered()
        await house.answer("session")
        asks.append(house.ask(b"anything", pid=9, process="p2"))
        assert house.folder.decided == dict.fromkeys(asks, True)
        foreign = FakeFolder(session="alice")
        house.ask(b"a", folder=foreign)
        assert foreign.decided == {}
        house.approvals.renew(house.folder)
        late = house.ask(b"b")
        assert late not in house.folder.decided


@in_trio
async def test_a_directory_with_more_than_can_be_listed_is_named_and_meant_with_all_below() -> None:
    async with approval_house() as house:
        house.commands[7] = (b"rm", b"-rf", b"d")
        house.folder.below = {b"d": tuple(b"d/%d" % number for number in range(10_001))}
        house.ask(b"d/0")
        await gathered()
        (asked,) = await house.open()
        assert (asked.more, asked.trees, len(asked.paths)) == (True, (b"d",), 1000)
        assert asked.count == 10_000
        await house.answer("once")
        inside, outside = house.ask(b"d/10000"), house.ask(b"dd")
        assert house.folder.decided[inside] is True
        assert outside not in house.folder.decided


@in_trio
async def test_a_folder_that_does_not_answer_is_asked_about_by_name() -> None:
    async with approval_house() as house:
        house.commands[7] = (b"rm", b"-r", b"d")
        house.folder.hangs = True
        house.ask(b"d/x")
        await gathered()
        jump(2)
        await settle()
        (asked,) = await house.open()
        assert (asked.paths, asked.more, asked.trees) == ((b"d/x", b"d"), True, (b"d",))


@in_trio
async def test_long_names_do_not_make_an_event_that_cannot_be_sent() -> None:
    async with approval_house() as house:
        for number in range(300):
            house.ask(b"%d" % number + b"\xff\n\x1b" * 80)
        await gathered()
        (told,) = house.told("approval.requested")
        assert told["count"] == 300
        assert 0 < sum(map(len, told["paths"])) < 32 * 1024
        assert len((await house.open())[0].paths) == 300


# -- bounds -------------------------------------------------------------------------------------------------------


@in_trio
async def test_more_questions_than_may_be_open_are_refused_and_told() -> None:
    async with approval_house() as house:
        asks = [house.ask(b"a", process=f"p{number}") for number in range(OPEN_LIMIT + 20)]
        await gathered()
        assert len(await house.open()) == OPEN_LIMIT
        assert house.folder.decided == dict.fromkeys(asks[OPEN_LIMIT:], False)
        jump(1)
        await settle()
        (refused,) = house.told("approval.refused")
        assert (refused["count"], refused["session"], refused["folder"]) == (20, "bob", "f")
        assert house.audit.fields("approval.answer")["count"] == 20


@in_trio
async def test_who_asks_in_a_loop_is_refused_without_a_question() -> None:
    async with approval_house() as house:
        for number in range(115):
            house.ask(b"a", pid=number + 1)
            await settle()
            jump(0.01)
            await settle()
            for each in await house.open():
                await house.answer("deny", each.approval)
            jump(0.05)
            await settle()
            for each in await house.open():
                await house.answer("deny", each.approval)
        jump(1)
        await settle()
        assert 100 <= len(house.told("approval.requested")) <= 112
        assert not any(house.folder.decided.values())
        assert any("too often" in told["reason"] for told in house.told("approval.refused"))


@in_trio
async def test_who_is_always_allowed_may_ask_on() -> None:
    async with approval_house() as house:
        for number in range(130):
            house.ask(b"%d" % number, pid=number + 1)
            await settle()
            jump(0.05)
            await settle()
            await house.answer("once")
        assert len(house.folder.decided) == 130
        assert all(house.folder.decided.values())


@in_trio
async def test_a_folder_that_ends_takes_its_questions_along() -> None:
    async with approval_house() as house:
        house.ask(b"a")
        await gathered()
        house.folder.is_there = False
        house.approvals.ended(house.folder)
        assert await house.open() == ()
        assert house.told("approval.closed")[0]["answer"] == "ended"


@in_trio
async def test_where_coworkd_ends_nothing_is_decided() -> None:
    async with approval_house() as house:
        house.ask(b"a")
        await gathered()
        folder, events = house.folder, house.events
    assert folder.decided == {}
    assert [event.name for event in events.published] == ["approval.requested"]
