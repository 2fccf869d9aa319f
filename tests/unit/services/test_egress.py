from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from coworkd.model import calls
from coworkd.model import egress as words
from coworkd.model.errors import InternalError, InvalidParams, NotFound, PolicyDenied, Unavailable
from coworkd.model.policy import SeccompProgram
from coworkd.services.egress import ALLOWANCE_LIMIT, MEND_S, Egress
from tests.unit.services.egress_house import FakeAuditLog, FakeEgressPolicies, Script, event
from tests.unit.services.process_house import FakeEvents, FakeSessions, in_trio, jump, open_fds, settle

BOB = words.SessionEgress(settings=(words.EgressSettings(source="egress/test.json", allowed=("index.example",)),))
INSPECTED = words.SessionEgress(
    settings=(words.EgressSettings(source="t", inspect=words.Inspection(domains=("index.example",))),)
)


class Trust:
    """Implements `services.egress.InspectionTrust`."""

    def __init__(self) -> None:
        self.pems: list[bytes | None] = []
        self.installed_pem = "ROOT"

    async def set_inspection_ca(self, pem: bytes | None) -> None:
        self.pems.append(pem)


class Room:
    def __init__(self) -> None:
        self.now = 1000.0
        self.script = Script()
        self.audit = FakeAuditLog()
        self.events = FakeEvents()
        self.policies = FakeEgressPolicies()
        self.sessions = FakeSessions()
        self.trust = Trust()
        self.states: list[str | None] = []
        self.egress = Egress(
            self.script.connect,
            version="1",
            host_uri="vsock://2:5006",
            filter_program=lambda: SeccompProgram(sha256="0" * 64, bpf=b"12345678", source="egress"),
            policies=self.policies,
            trust=self.trust,
            audit=self.audit,
            events=self.events,
            on_state=self.states.append,
            clock=lambda: self.now,
        )
        self.egress.attach(self.sessions)

    async def serve_bob(self, egress: words.SessionEgress = BOB) -> words.Serve:
        """Serve bob, and what coworkd-egress heard of it."""
        listener = os.memfd_create("listener")
        served: list[words.Serve] = []

        async def take() -> None:
            served.append(await self.script.done(words.Serve))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await self.egress.serve_session("bob", egress, (listener,))
        return served[0]


@asynccontextmanager
async def open_room(*, begun: bool = True) -> AsyncIterator[Room]:
    before = open_fds()
    room = Room()
    async with trio.open_nursery() as nursery:
        if begun:
            async with trio.open_nursery() as starting:
                starting.start_soon(room.script.begin)
                await nursery.start(room.egress.serve)
        yield room
        nursery.cancel_scope.cancel()
    room.egress.close()
    if begun:
        room.script.hang_up()
    assert open_fds() == before


async def together(script: Any, call: Any) -> Any:
    """Run `call` while `script` answers it."""
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        answers.insert(0, await script)
    return answers


@in_trio
async def test_a_session_is_handed_over_with_its_listeners() -> None:
    async with open_room() as room:
        serve = await room.serve_bob()
        assert (serve.session, serve.egress) == ("bob", BOB)
        assert len(room.script.fds) == 1
        assert room.audit.kinds == ["egress.begin"]


@in_trio
async def test_every_session_is_handed_over_again_to_the_next_one() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.script.hang_up()
        await settle()
        jump(1)
        await room.script.begin(pid=78)
        serve = await room.script.done(words.Serve)
        assert (serve.session, len(room.script.fds)) == ("bob", 1)
        await settle()
        assert room.states[-1] is None


@in_trio
async def test_a_session_is_no_worse_off_while_it_is_away() -> None:
    async with open_room() as room:
        room.script.hang_up()
        await settle()
        await room.egress.serve_session("bob", BOB, (os.memfd_create("listener"),))
        await room.egress.stop("eve")
        jump(1)
        await room.script.begin(pid=78)
        assert (await room.script.done(words.Serve)).session == "bob"


@in_trio
async def test_it_comes_up_without_one_after_a_while() -> None:
    room = Room()
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
async def test_stop_closes_what_was_served() -> None:
    async with open_room() as room:
        await room.serve_bob()
        stop, _ = await together(room.script.done(words.Stop), room.egress.stop("bob"))
        assert stop.session == "bob"
        assert await room.egress.change("bob", BOB, close_forbidden=True) == 0


@in_trio
async def test_what_an_earlier_coworkd_left_is_stopped_unless_it_was_taken_over() -> None:
    room = Room()
    async with trio.open_nursery() as nursery:

        async def begin() -> None:
            request = await room.script.next()
            await room.script.say(words.Begun(id=request.id, version="1", pid=77, sessions=("bob", "eve")))

        async with trio.open_nursery() as starting:
            starting.start_soon(begin)
            await nursery.start(room.egress.serve)

        async def take_over() -> None:
            await room.script.done(words.Serve)
            change = await room.script.done(words.Change)
            # The policy may be another than the one the connections were opened under.
            assert (change.session, change.close_forbidden) == ("bob", True)
            assert (await room.script.done(words.Stop)).session == "eve"

        async def open_sessions() -> None:
            await room.egress.serve_session("bob", BOB, ())
            await room.egress.stop_others()

        await together(take_over(), open_sessions())
        nursery.cancel_scope.cancel()
    room.egress.close()
    room.script.hang_up()


@in_trio
async def test_the_inspector_is_trusted_before_the_session_is_served() -> None:
    async with open_room() as room:

        async def script() -> None:
            request = await room.script.next()
            assert isinstance(request, words.GetCa)
            await room.script.say(words.CaMade(id=request.id, pem=b"PEM"))
            assert (await room.script.done(words.TrustRoots)).pem == "ROOT"
            await room.script.done(words.Serve)
            assert room.trust.pems == [b"PEM"]
            await room.script.done(words.Change)

        async def serve() -> None:
            await room.egress.serve_session("bob", INSPECTED, ())
            await room.egress.change("bob", INSPECTED, close_forbidden=False)

        await together(script(), serve())
        assert room.trust.pems == [b"PEM"]


@in_trio
async def test_the_inspector_hears_of_certificates_that_are_installed_later() -> None:
    async with open_room() as room:
        await room.egress.trust_changed()  # nobody inspects yet, so nobody is told

        async def begin() -> None:
            request = await room.script.next()
            await room.script.say(words.CaMade(id=request.id, pem=b"PEM"))
            await room.script.done(words.TrustRoots)
            await room.script.done(words.Serve)

        await together(begin(), room.egress.serve_session("bob", INSPECTED, ()))
        room.trust.installed_pem = "ROOT OTHER"
        told, _ = await together(room.script.done(words.TrustRoots), room.egress.trust_changed())
        assert told.pem == "ROOT OTHER"


@in_trio
async def test_an_inspector_that_does_not_take_certificates_is_told_again_with_the_next_session() -> None:
    async with open_room() as room:

        async def script() -> None:
            for _ in range(2):
                request = await room.script.next()
                assert isinstance(request, words.GetCa)
                await room.script.say(words.CaMade(id=request.id, pem=b"PEM"))
                await room.script.done(words.TrustRoots)
                await room.script.done(words.Serve)
                request = await room.script.next()
                assert isinstance(request, words.TrustRoots)
                await room.script.say(words.Refused(id=request.id, message="no"))

        async def serve() -> None:
            for _ in range(2):
                await room.egress.serve_session("bob", INSPECTED, ())
                await room.egress.trust_changed()

        await together(script(), serve())


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


def allow(host: str = "extra.example", duration_s: float = 60.0) -> calls.EgressAllow:
    return calls.EgressAllow(session="bob", host=host, duration_s=duration_s)


@in_trio
async def test_an_allowance_holds_until_its_time() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        change, allowed = await together(room.script.done(words.Change), room.egress.allow(allow()))
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
        await together(room.script.done(words.Change), room.egress.allow(allow()))
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
                await room.egress.allow(allow(duration_s=duration_s))
            assert "egress.allow" not in room.audit.kinds

    run()


@in_trio
async def test_without_a_bound_nothing_is_allowed_for_a_time() -> None:
    async with open_room() as room:
        await room.serve_bob()
        with pytest.raises(PolicyDenied):
            await room.egress.allow(allow())


@in_trio
async def test_a_strict_list_is_lifted_by_no_allowance() -> None:
    async with open_room() as room:
        await room.serve_bob(words.SessionEgress(settings=(words.EgressSettings(source="strict.json", strict=True),)))
        room.policies.allow_max_s = 100.0
        with pytest.raises(PolicyDenied, match=r"strict\.json says strictAllowlist"):
            await room.egress.allow(allow())


@in_trio
async def test_an_allowance_names_a_host_as_a_file_would() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        for host in ("*", "*.com", "https://x.example", "single", ""):
            with pytest.raises(InvalidParams):
                await room.egress.allow(allow(host=host))


@in_trio
async def test_allowances_are_bounded() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.policies.allow_max_s = 100.0
        for number in range(ALLOWANCE_LIMIT):
            await together(room.script.done(words.Change), room.egress.allow(allow(f"h{number}.example")))
        with pytest.raises(Exception, match="allowances"):
            await room.egress.allow(allow())


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


@in_trio
async def test_a_session_that_is_refused_does_not_keep_others_from_being_handed_over() -> None:
    async with open_room() as room:
        await room.serve_bob()
        await together(room.script.done(words.Serve), room.egress.serve_session("eve", BOB, ()))
        room.script.hang_up()
        await settle()
        jump(1)
        await room.script.begin(pid=78)
        request = await room.script.next()
        await room.script.say(words.Refused(id=request.id, message="too many open files"))
        assert (await room.script.done(words.Serve)).session == "eve"
        # The one that was refused is handed over with its next change.
        serve, closed = await together(
            room.script.done(words.Serve), room.egress.change("bob", BOB, close_forbidden=True)
        )
        assert (serve.session, closed, room.states[-1]) == ("bob", 0, None)


@in_trio
async def test_a_session_that_is_refused_is_told_and_handed_over_again() -> None:
    async with open_room() as room:

        async def refuse() -> None:
            request = await room.script.next()
            await room.script.say(words.Refused(id=request.id, message="too many open files"))

        await together(refuse(), room.egress.serve_session("bob", BOB, ()))
        assert room.states[-1] is not None
        assert "session bob has no way out: coworkd-egress refused: too many open files" in room.states[-1]
        jump(MEND_S)
        await refuse()
        await settle()
        told = len(room.states)
        jump(MEND_S)
        await room.script.done(words.Serve)
        await settle()
        assert room.states[told:] == [None]


@in_trio
async def test_a_full_disk_keeps_no_session_from_the_next_one() -> None:
    async with open_room() as room:
        await room.serve_bob()
        room.script.hang_up()
        await settle()
        room.audit.full = {"egress.begin"}
        jump(1)
        await room.script.begin(pid=78)
        assert (await room.script.done(words.Serve)).session == "bob"


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
        assert (await room.egress.allow(allow())).until == 1060.0
        jump(1)
        await room.script.begin(pid=78)
        serve = await room.script.done(words.Serve)
        assert [layer.source for layer in serve.egress.settings] == ["other.json"]
        assert len(serve.egress.allowances) == 1


@in_trio
async def test_a_change_that_is_refused_is_none() -> None:
    async with open_room() as room:
        await room.serve_bob()

        async def refuse() -> None:
            request = await room.script.next()
            await room.script.say(words.Refused(id=request.id, message="no"))

        other = words.SessionEgress(settings=(words.EgressSettings(source="other.json", allowed=("a.example",)),))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(InternalError):
                await room.egress.change("bob", other, close_forbidden=True)
        assert not (await room.egress.check(calls.EgressCheck(host="a.example", session="bob"))).allowed


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
                await room.egress.allow(allow())
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
                nursery.start_soon(room.egress.allow, allow(f"h{number}.example"))
        assert len(room.egress.allowances("bob")) == 3


@in_trio
async def test_listeners_are_not_closed_while_they_are_sent() -> None:
    """Their numbers are soon others': another session's listeners would be served by this one's policy."""
    async with open_room() as room:
        await room.serve_bob()
        room.script.hang_up()
        await settle()
        await room.egress.change("bob", INSPECTED, close_forbidden=False)
        (listener,) = room.egress._served["bob"].listeners
        jump(1)
        await room.script.begin(pid=78)
        get_ca = await room.script.next()
        assert isinstance(get_ca, words.GetCa)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.egress.stop, "bob")
            await settle()
            os.fstat(listener)
            await room.script.say(words.CaMade(id=get_ca.id, pem=b"PEM"))
            await room.script.done(words.TrustRoots)
            await room.script.done(words.Serve)
            assert len(room.script.fds) == 1
            await room.script.done(words.Stop)


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
