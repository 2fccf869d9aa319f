"""Who is served, as coworkd-egress hears it."""

from __future__ import annotations

import os

import pytest
import trio

from coworkd.model import calls
from coworkd.model import egress as words
from coworkd.model.errors import InternalError
from coworkd.services.egress_serving import MEND_S
from tests.unit.services.egress_house import BOB, INSPECTED, EgressRoom, open_room, together
from tests.unit.services.process_house import in_trio, jump, settle


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
async def test_stop_closes_what_was_served() -> None:
    async with open_room() as room:
        await room.serve_bob()
        stop, _ = await together(room.script.done(words.Stop), room.egress.stop("bob"))
        assert stop.session == "bob"
        assert await room.egress.change("bob", BOB, close_forbidden=True) == 0


@in_trio
async def test_what_an_earlier_coworkd_left_is_stopped_unless_it_was_taken_over() -> None:
    room = EgressRoom()
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
async def test_listeners_are_not_closed_while_they_are_sent() -> None:
    """Their numbers are soon others': another session's listeners would be served by this one's policy."""
    async with open_room() as room:
        await room.serve_bob()
        room.script.hang_up()
        await settle()
        await room.egress.change("bob", INSPECTED, close_forbidden=False)
        served = room.egress._serving.find("bob")
        assert served is not None
        (listener,) = served.listeners
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
async def test_a_session_that_is_taken_over_just_now_is_not_stopped_as_kept() -> None:
    room = EgressRoom()
    async with trio.open_nursery() as nursery:

        async def begin() -> None:
            request = await room.script.next()
            await room.script.say(words.Begun(id=request.id, version="1", pid=77, sessions=("bob", "eve")))

        async with trio.open_nursery() as starting:
            starting.start_soon(begin)
            await nursery.start(room.egress.serve)
        async with trio.open_nursery() as both:
            both.start_soon(room.egress.stop_others)
            stop = await room.script.next()
            assert isinstance(stop, words.Stop)
            # While the first is stopped, the other one is opened.
            other = {"bob": "eve", "eve": "bob"}[stop.session]
            both.start_soon(room.egress.serve_session, other, BOB, ())
            await settle()
            await room.script.say(words.Done(id=stop.id))
            assert (await room.script.done(words.Serve)).session == other
            assert (await room.script.done(words.Change)).session == other
        assert room.egress._serving.find(other) is not None
        nursery.cancel_scope.cancel()
    room.egress.close()
    room.script.hang_up()
