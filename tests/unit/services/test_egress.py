from __future__ import annotations

from typing import Any

import pytest
import trio

from coworkd.model import calls
from coworkd.model import egress as words
from coworkd.model.errors import InvalidParams, NotFound, PolicyDenied, Unavailable
from coworkd.services.egress import ALLOWANCE_LIMIT
from tests.unit.services.egress_house import BOB, EgressRoom, allow_call, event, open_room, together
from tests.unit.services.process_house import in_trio, jump, settle


@in_trio
async def test_it_comes_up_without_one_after_a_while() -> None:
    room = EgressRoom()
    room.script.refuse = FileNotFoundError(2, "No such file or directory")
    async with trio.open_nursery() as nursery:

        async def pass_time() -> None:
            await settle()
            jump(10)

        nursery.start_soon(pass_time)
        await nursery.start(room.egress.serve)
        assert "cannot be reached" in (room.states[-1] or "")
        nursery.cancel_scope.cancel()


@in_trio
async def test_check_says_which_rule_and_canonical_host() -> None:
    async with open_room() as room:
        await room.serve_bob()
        by_session = await room.egress.check(calls.EgressCheck(host="INDEX.example.", session="bob"))
        assert (by_session.allowed, by_session.host, by_session.port) == (True, "index.example", 443)
        assert by_session.rule == "index.example in egress/test.json"
        by_profile = await room.egress.check(calls.EgressCheck(host="evil.example", port=80))
        assert (by_profile.allowed, by_profile.rule) == (False, None)
        for port in (0, 65536, -1):
            with pytest.raises(InvalidParams):
                await room.egress.check(calls.EgressCheck(host="index.example", port=port))


@in_trio
async def test_check_of_a_session_that_is_not_there_is_not_found() -> None:
    async with open_room() as room:
        room.sessions.error = NotFound("there is no session 'bob'")
        with pytest.raises(NotFound):
            await room.egress.check(calls.EgressCheck(host="index.example", session="bob"))


@in_trio
async def test_an_allowance_holds_until_its_time() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        change, allowed = await together(room.script.done(words.Change), room.egress.allow(allow_call()))
        assert (allowed.host, allowed.until) == ("extra.example", 1060.0)
        assert change.egress.allowances == (words.Allowance(pattern="extra.example", until=1060.0),)
        assert room.audit.fields("egress.allow")["until"] == 1060.0
        assert (await room.egress.check(calls.EgressCheck(host="extra.example", session="bob"))).allowed
        room.now = 1061.0
        assert not (await room.egress.check(calls.EgressCheck(host="extra.example", session="bob"))).allowed
        assert room.egress.allowances("bob") == ()


@in_trio
async def test_allowances_outlive_another_policy_and_a_new_coworkd_egress() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        await together(room.script.done(words.Change), room.egress.allow(allow_call()))
        change, _ = await together(
            room.script.done(words.Change, closed=2), room.egress.change("bob", BOB, close_forbidden=True)
        )
        assert len(change.egress.allowances) == 1
        assert len((await room.serve_bob()).egress.allowances) == 1


@pytest.mark.parametrize("duration_s", [0.0, -1.0, 101.0, float("nan"), float("inf")])
def test_an_allowance_has_the_bound_of_the_profile(duration_s: float) -> None:
    @in_trio
    async def run() -> None:
        async with open_room() as room:
            await room.serve_bob()
            room.policies.allow_max_s = 100.0
            with pytest.raises(PolicyDenied, match="allow_max_s"):
                await room.egress.allow(allow_call(duration_s=duration_s))
            assert "egress.allow" not in room.audit.kinds

    run()


@in_trio
async def test_without_a_bound_nothing_is_allowed_for_a_time() -> None:
    async with open_room() as room:
        await room.serve_bob()
        with pytest.raises(PolicyDenied):
            await room.egress.allow(allow_call())


@in_trio
async def test_a_strict_list_is_lifted_by_no_allowance() -> None:
    async with open_room() as room:
        await room.serve_bob(words.SessionEgress(settings=(words.EgressSettings(source="strict.json", strict=True),)))
        room.policies.allow_max_s = 100.0
        with pytest.raises(PolicyDenied, match=r"strict\.json says strictAllowlist"):
            await room.egress.allow(allow_call())


@in_trio
async def test_an_allowance_names_a_host_as_a_file_would() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        for host in ("*", "*.com", "https://x.example", "single", ""):
            with pytest.raises(InvalidParams):
                await room.egress.allow(allow_call(host=host))


@in_trio
async def test_allowances_are_bounded() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        for number in range(ALLOWANCE_LIMIT):
            await together(room.script.done(words.Change), room.egress.allow(allow_call(f"h{number}.example")))
        with pytest.raises(Exception, match="allowances"):
            await room.egress.allow(allow_call())


@in_trio
async def test_the_log_is_what_was_recorded() -> None:
    async with open_room() as room:
        await room.serve_bob()
        await together(room.script.done(words.Serve), room.egress.serve_session("eve", BOB, ()))
        await room.script.say(
            words.Told(
                events=(
                    event(1),
                    event(2, "refused", reason="not on the list", session="eve", count=3),
                    event(3, "close", sent_bytes=5),
                    event(4, "request", method="GET", path="/x", status=200),
                )
            )
        )
        acknowledged = await room.script.next()
        assert acknowledged == words.Recorded(through=4)
        await settle()
        told = await room.egress.log(calls.EgressLog())
        assert [record.kind for record in told.records] == ["open", "refused", "close", "request"]
        (refused,) = (await room.egress.log(calls.EgressLog(refused_only=True))).records
        assert (refused.session, refused.count, refused.reason) == ("eve", 3, "not on the list")
        assert len((await room.egress.log(calls.EgressLog(session="bob", limit=2))).records) == 2
        with pytest.raises(InvalidParams):
            await room.egress.log(calls.EgressLog(limit=0))
        status = await room.egress.status()
        assert (status.pid, [each.session for each in status.sessions]) == (77, ["bob", "eve"])
        totals = room.egress.totals()
        assert totals["unrecorded"] == status.unrecorded
        assert totals["refused_total"] == sum(each.refused_total for each in status.sessions) >= 3
        assert totals["sent_bytes"] == sum(each.sent_bytes for each in status.sessions)


@in_trio
async def test_a_change_holds_while_it_is_away() -> None:
    """Nothing gets out until it has heard of it, so it is no failure."""
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        room.script.hang_up()
        await settle()
        other = words.SessionEgress(settings=(words.EgressSettings(source="other.json"),))
        assert await room.egress.change("bob", other, close_forbidden=True) == 0
        assert (await room.egress.allow(allow_call())).until == 1060.0
        jump(1)
        await room.script.begin(pid=78)
        serve = await room.script.done(words.Serve)
        assert [layer.source for layer in serve.egress.settings] == ["other.json"]
        assert len(serve.egress.allowances) == 1


@in_trio
async def test_an_allowance_does_not_bring_back_the_policy_it_was_asked_under() -> None:
    """The session is closed, and opened with another policy, while the allowance is judged."""
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        narrow = words.SessionEgress(settings=(words.EgressSettings(source="narrow.json"),))
        reached, goes_on = trio.Event(), trio.Event()
        effective = room.policies.effective

        async def slow(profile: str | None, limits: Any) -> Any:
            reached.set()
            await goes_on.wait()
            return await effective(profile, limits)

        room.policies.effective = slow  # type: ignore[method-assign]

        async def set_policy() -> None:
            await reached.wait()
            await together(room.script.done(words.Stop), room.egress.stop("bob"))
            await together(room.script.done(words.Serve), room.egress.serve_session("bob", narrow, ()))
            goes_on.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(set_policy)
            with pytest.raises(Unavailable, match="closed meanwhile"):
                await room.egress.allow(allow_call())
        assert room.egress.allowances("bob") == ()


@in_trio
async def test_allowances_at_the_same_time_all_hold() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0

        async def take() -> None:
            for _ in range(3):
                await room.script.done(words.Change)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            for number in range(3):
                nursery.start_soon(room.egress.allow, allow_call(f"h{number}.example"))
        assert len(room.egress.allowances("bob")) == 3


@in_trio
async def test_what_is_told_of_a_session_that_is_gone_leaves_no_sums() -> None:
    async with open_room() as room:
        await room.serve_bob()
        await room.script.say(words.Told(events=(event(1),)))
        await room.script.next()
        await together(room.script.done(words.Stop), room.egress.stop("bob"))
        await room.script.say(words.Told(events=(event(2, "close"),)))
        await room.script.next()
        await settle()
        assert (await room.egress.status()).sessions == ()
        assert room.audit.kinds[-1] == "egress.close"


@in_trio
async def test_quit_ends_it_and_lets_go() -> None:
    async with open_room() as room:
        await room.serve_bob()

        async def end() -> None:
            request = await room.script.next()
            for first in range(1, 1001, 100):
                told = tuple(event(number, "close") for number in range(first, first + 100))
                await room.script.say(words.Told(events=told))
            await room.script.say(words.Done(id=request.id))

        await together(end(), room.egress.quit())
        assert room.audit.kinds.count("egress.close") == 1000
        assert room.egress.allowances("bob") == ()
