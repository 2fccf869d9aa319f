"""The launcher's client against a launcher that is a script: the test reads each request and says what comes back."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import structs

from coworkd.model import launch
from coworkd.model.errors import (
    CoworkError,
    InvalidState,
    MountFailed,
    SandboxSetupFailed,
    StartFailed,
    Unavailable,
)
from coworkd.model.limits import CgroupLimits, Rlimits
from coworkd.model.policy import EffectivePolicy, LimitsRequest
from coworkd.model.process import Rusage
from tests.unit.services.launching_house import Script, both, error_of, open_fds, open_script
from tests.unit.services.process_house import FakePolicies, in_trio, settle

RUSAGE = Rusage(
    user_s=0.0,
    system_s=0.0,
    max_rss_bytes=0,
    minor_faults=0,
    major_faults=0,
    voluntary_switches=0,
    involuntary_switches=0,
)
SPAWNED = launch.Spawned(id=0, process="p1", monitor_pid=9, fds=("stdout", "stderr"), at=1.0)
STARTED = launch.Started(process="p1", init_pid=2, payload_pid=3, at=2.0, monitor_pid=9)
EXITED = launch.Exited(
    process="p1", code=0, signal=None, inferred=False, killed=False, oom_kills=0, rusage=RUSAGE, at=3.0
)
OPEN = launch.OpenSession(id=0, session="bob", uid=1001, gid=1001, tree=(), limits=CgroupLimits())


@in_trio
async def test_the_first_request_adopts_and_only_then_is_the_service_there() -> None:
    async with open_script() as script:
        assert script.states == [None]
        assert script.client.generation == 1
        assert script.client.pid == os.getpid()


@in_trio
async def test_what_was_kept_is_handed_over_once_with_its_descriptors() -> None:
    kept = launch.Adopted(
        id=0,
        process="p1",
        session="bob",
        argv=(b"cat",),
        spawned=SPAWNED,
        started=STARTED,
        start_error=None,
        exited=None,
    )
    async with open_script(kept, structs.replace(kept, process="p2")) as script:
        adopted = script.client.adopted
        assert [one.process for one, _ in adopted] == ["p1", "p2"]
        assert script.client.adopted == []
        fd = adopted[0][1].take("stderr")
        assert fd is not None
        assert os.readlink(f"/proc/self/fd/{fd}") == "/memfd:stderr (deleted)"
        assert adopted[0][1].take("stderr") is None
        os.close(fd)
        for _, fds in adopted:
            fds.close()


KEPT = launch.Adopted(
    id=0, process="p1", session="bob", argv=(b"cat",), spawned=SPAWNED, started=STARTED, start_error=None, exited=None
)


@in_trio
async def test_an_end_before_anybody_has_taken_the_command_is_not_lost() -> None:
    async with open_script(KEPT) as script:
        await script.say(EXITED)
        await settle()
        ((adopted, fds),) = script.client.adopted
        fds.close()
        assert adopted.exited == EXITED


@in_trio
async def test_a_launcher_that_goes_before_that_has_lost_it() -> None:
    async with open_script(KEPT) as script:
        script.refuse = OSError(errno.ECONNREFUSED, "nobody listens")
        script.die()
        await settle()
        ((adopted, fds),) = script.client.adopted
        fds.close()
        heard: list[launch.Notice | None] = []
        script.client.watch(adopted.process, heard.append)
        assert heard == [None]


@in_trio
async def test_a_note_is_told_and_not_waited_for() -> None:
    async with open_script() as script:
        await script.client.annotate("p1", b"note")
        assert await script.next() == launch.Annotate(id=0, process="p1", note=b"note")


@in_trio
async def test_what_the_launcher_says_of_itself_is_known_and_waited_for() -> None:
    async with open_script() as script:
        assert script.client.taken_over is not None
        assert script.client.taken_over.supervisors_before == 0
        await script.client.wait_adopted()
        with trio.move_on_after(0) as scope:
            await script.client.wait_adopted()
        assert scope.cancelled_caught


@in_trio
async def test_a_session_is_opened_with_what_was_left_out() -> None:
    async with open_script() as script:
        answer = launch.Opened(id=0, missing=("/a",), degraded=("b",))
        listeners = [os.memfd_create(name) for name in ("one", "two")]
        opened = await both(script.client.open_session(OPEN), script.answer(answer, *listeners))
        assert (opened.missing, opened.degraded) == (("/a",), ("b",))
        assert [os.readlink(f"/proc/self/fd/{fd}") for fd in opened.listeners] == [
            "/memfd:one (deleted)",
            "/memfd:two (deleted)",
        ]
        for fd in opened.listeners:
            os.close(fd)


@in_trio
@pytest.mark.parametrize("ipv6", [False, True])
async def test_a_socket_is_made_in_a_session(ipv6: bool) -> None:
    async with open_script() as script:
        asked: list[Any] = []

        async def play() -> None:
            asked.append(await script.answer(launch.SocketMade(id=0), os.memfd_create("socket")))

        fd = await both(script.client.make_socket("bob", ipv6=ipv6), play())
        assert os.readlink(f"/proc/self/fd/{fd}") == "/memfd:socket (deleted)"
        os.close(fd)
        assert [(request.session, request.ipv6) for request in asked] == [("bob", ipv6)]


@in_trio
@pytest.mark.parametrize("count", [0, 2])
async def test_a_socket_is_one_descriptor(count: int) -> None:
    async with open_script() as script:
        fds = [os.memfd_create("socket") for _ in range(count)]
        error = await error_of(script.client.make_socket("bob"), script.answer(launch.SocketMade(id=0), *fds))
        assert isinstance(error, Unavailable)


@in_trio
@pytest.mark.parametrize(
    "answer",
    [
        launch.Refused(id=0, stage="session", errno=errno.ESRCH, message="so it is"),
        launch.Done(id=0),
        launch.Opened(id=0),
        SPAWNED,
    ],
    ids=lambda answer: type(answer).__name__,
)
async def test_what_comes_with_another_answer_is_closed(answer: launch.Answer) -> None:
    async with open_script() as script:
        fds = [os.memfd_create("stray") for _ in range(2)]
        error = await error_of(script.client.make_socket("bob"), script.answer(answer, *fds))
        assert isinstance(error, InvalidState if isinstance(answer, launch.Refused) else Unavailable)


@in_trio
async def test_what_comes_with_a_mere_done_or_a_notice_is_closed() -> None:
    async with open_script() as script:
        await script.say(STARTED, os.memfd_create("stray"))
        await both(script.client.kill("p1"), script.answer(launch.Done(id=0), os.memfd_create("stray")))


@in_trio
async def test_listeners_of_a_caller_that_was_cancelled_still_reach_it() -> None:
    async with open_script() as script, trio.open_nursery() as nursery:
        got: list[int] = []
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                got.extend((await script.client.open_session(OPEN)).listeners)

        nursery.start_soon(ask)
        request = await script.next()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await script.say(launch.Opened(id=request.id), os.memfd_create("one"))
        while not got:
            await trio.lowlevel.checkpoint()
        os.close(got[0])


@pytest.mark.parametrize(
    ("stage", "number", "kind"),
    [
        ("policy_denied", errno.EPERM, StartFailed),
        ("resources", errno.EMFILE, StartFailed),
        ("bind /srv/a", errno.EIO, MountFailed),
        ("tree", errno.ETIMEDOUT, MountFailed),
        ("namespaces", errno.EPERM, SandboxSetupFailed),
        ("uid", errno.EPERM, SandboxSetupFailed),
        ("builder", None, SandboxSetupFailed),
    ],
)
def test_a_refusal_is_a_typed_error(stage: str, number: int | None, kind: type[CoworkError]) -> None:
    @in_trio
    async def run() -> None:
        async with open_script() as script:
            refused = launch.Refused(id=0, stage=stage, errno=number, message="so it is")
            error = await error_of(script.client.open_session(OPEN), script.answer(refused))
            assert type(error) is kind
            assert (error.message, error.details["errno"]) == ("so it is", number)

    run()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_a_folder_that_is_no_directory_is_the_callers_to_mend(number: int) -> None:
    @in_trio
    async def run() -> None:
        async with open_script() as script:
            refused = launch.Refused(id=0, stage="bind /srv/a", errno=number, message="so it is")
            error = await error_of(script.client.open_session(OPEN), script.answer(refused))
            assert type(error) is InvalidState
            assert error.message.startswith(f"/srv/a cannot be mounted: {os.strerror(number)}")
            assert error.details["path"] == "/srv/a"

    run()


@in_trio
async def test_a_failed_bind_names_its_path() -> None:
    async with open_script() as script:
        refused = launch.Refused(id=0, stage="bind /srv/a", errno=2, message="no")
        error = await error_of(script.client.open_session(OPEN), script.answer(refused))
        assert error.details["path"] == "/srv/a"


@in_trio
async def test_every_verb_asks_for_what_it_is() -> None:
    async with open_script() as script:
        client, done = script.client, launch.Done(id=0)
        verbs: list[tuple[Callable[[], Awaitable[None]], type]] = [
            (lambda: client.close_session("bob"), launch.CloseSession),
            (lambda: client.signal("p1", 15), launch.Signal),
            (lambda: client.kill("p1"), launch.Kill),
            (lambda: client.abandon("p1"), launch.Abandon),
            (lambda: client.release("p1", "stdin"), launch.Release),
            (lambda: client.keep("p1", "tty", 0), launch.Keep),
        ]
        asked: list[Any] = []

        async def play() -> None:
            asked.append(await script.answer(done))

        for verb, _ in verbs:
            await both(verb(), play())
        assert [type(request) for request in asked] == [kind for _, kind in verbs]
        assert len({request.id for request in asked}) == len(verbs)


@in_trio
async def test_answers_find_their_calls_in_any_order() -> None:
    async with open_script() as script, trio.open_nursery() as nursery:
        results: dict[str, tuple[str, ...]] = {}

        async def ask(name: str) -> None:
            results[name] = (await script.client.open_session(structs.replace(OPEN, session=name))).missing

        for name in ("a", "b", "c"):
            nursery.start_soon(ask, name)
        requests = [await script.next() for _ in range(3)]
        for request in reversed(requests):
            await script.say(launch.Opened(id=request.id, missing=(request.session,)))
        while len(results) < 3:
            await trio.lowlevel.checkpoint()
        assert results == {"a": ("a",), "b": ("b",), "c": ("c",)}


@in_trio
async def test_notices_reach_their_watcher_in_order_and_nobody_else() -> None:
    async with open_script() as script:
        heard: list[launch.Notice | None] = []
        script.client.watch("p1", heard.append)
        await script.say(structs.replace(STARTED, process="p2"))
        await script.say(STARTED)
        await script.say(EXITED)
        await both(script.client.kill("p1"), script.answer(launch.Done(id=0)))
        assert heard == [STARTED, EXITED]
        script.client.unwatch("p1")
        await script.say(EXITED)
        await both(script.client.kill("p1"), script.answer(launch.Done(id=0)))
        assert len(heard) == 2


@in_trio
async def test_when_we_end_nobody_hears_that_the_commands_were_lost() -> None:
    heard: list[launch.Notice | None] = []
    async with open_script() as script:
        script.client.watch("p1", heard.append)
    assert heard == []
    assert script.states == [None]
    assert script.client.pid is None


@in_trio
async def test_a_lost_launcher_is_told_to_all_and_connected_to_again() -> None:
    async with open_script() as script, trio.open_nursery() as nursery:
        heard: list[launch.Notice | None] = []
        script.client.watch("p1", heard.append)

        async def lose() -> None:
            await script.next()
            nursery.start_soon(script.adopt)
            script.die()

        error = await error_of(script.client.kill("p1"), lose())
        assert isinstance(error, Unavailable)
        assert heard == [None]
        while script.client.generation < 2 or script.states[-1] is not None:
            await trio.lowlevel.checkpoint()
        assert script.states == [None, "the launcher is gone", None]
        await both(script.client.kill("p1"), script.answer(launch.Done(id=0)))
        assert heard == [None]


@in_trio
async def test_a_launcher_that_cannot_be_reached_is_told_and_tried_again() -> None:
    script = Script()
    script.refuse = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.client.serve)
        while not script.states:
            await trio.lowlevel.checkpoint()
        assert script.states == ["the launcher cannot be reached: Connection refused"]
        with pytest.raises(Unavailable, match="away"):
            await script.client.kill("p1")
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_launcher_that_breaks_the_words_is_left_and_connected_to_again() -> None:
    async with open_script() as script, trio.open_nursery() as nursery:
        nursery.start_soon(script.adopt)
        broken = script._socket
        assert broken is not None
        await script.say_bytes(b"junk")
        while script.client.generation < 2 or script.states[-1] is not None:
            await trio.lowlevel.checkpoint()
        broken.close()


@in_trio
async def test_an_answer_nobody_asked_for_is_closed() -> None:
    async with open_script() as script:
        before = open_fds()
        await script.say(
            structs.replace(SPAWNED, id=999), os.memfd_create("stray-stdout"), os.memfd_create("stray-stderr")
        )
        await both(script.client.kill("p1"), script.answer(launch.Done(id=0)))
        assert open_fds() == before


@in_trio
async def test_a_cancelled_call_still_gets_its_answer() -> None:
    async with open_script() as script:
        ended: list[str] = []

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                await script.client.kill("p1")
                ended.append("answered")

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, scope)
            request = await script.next()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert ended == []
            await script.say(launch.Done(id=request.id))
        assert ended == ["answered"]


@in_trio
async def test_an_end_that_comes_before_the_launcher_has_answered_waits_for_nothing() -> None:
    script = Script()
    ended = trio.Event()

    async def serve() -> None:
        with scope:
            await script.client.serve()
        ended.set()

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(serve)
        assert isinstance(await script.next_of_new(), launch.Adopt)
        scope.cancel()
        await settle()
        waits = not ended.is_set()
        if script.client._channel is not None:
            script.client._let_go(script.client._channel)
    script.die()
    assert not waits


@in_trio
async def test_quit_is_the_last_word() -> None:
    async with open_script() as script:

        async def end() -> None:
            assert isinstance(await script.answer(launch.Done(id=0)), launch.Quit)
            script.die()

        await both(script.client.quit(), end())
        await trio.testing.wait_all_tasks_blocked()
        assert script.client.generation == 1
        for verb in (script.client.kill, script.client.forget):
            with pytest.raises(Unavailable):
                await verb("p1")


SPAWN = launch.Spawn(
    id=0,
    process="p1",
    session="bob",
    uid=1001,
    gid=1001,
    argv=(b"cat",),
    bwrap_args=(),
    filters=("0" * 64, "0" * 64),
    stdin=False,
    rlimits=Rlimits(nofile=64, nproc=1),
)


def memfds() -> tuple[int, ...]:
    return tuple(os.memfd_create(name) for name in SPAWNED.fds)


async def effective() -> EffectivePolicy:
    return await FakePolicies().effective(None, LimitsRequest())


@in_trio
async def test_a_sandbox_comes_with_its_descriptors_and_filters_are_put_once() -> None:
    async with open_script() as script:
        policy, done = await effective(), launch.Done(id=0)
        asked: list[Any] = []

        async def play(*answers: tuple[launch.Answer, tuple[int, ...]]) -> None:
            for answer, fds in answers:
                asked.append(await script.answer(answer, *fds))

        spawn = script.client.spawn(SPAWN, policy)
        fds = await both(spawn, play((done, ()), (SPAWNED, memfds())))
        assert fds.spawned.fds == SPAWNED.fds
        fds.close()
        (await both(script.client.spawn(SPAWN, policy), play((SPAWNED, memfds())))).close()
        assert [type(request).__name__ for request in asked] == ["PutFilter", "Spawn", "Spawn"]


@in_trio
async def test_what_is_only_told_waits_for_no_answer() -> None:
    async with open_script() as script:
        await script.client.forget("p1")
        assert await script.next() == launch.Forget(id=0, process="p1")


@in_trio
async def test_a_spawn_that_is_refused_is_told_and_abandons_nothing() -> None:
    async with open_script() as script:
        refused = launch.Refused(id=0, stage="resources", errno=errno.EMFILE, message="no descriptors")
        spawn = script.client.spawn(SPAWN, await effective())
        error = await error_of(spawn, script.answer(launch.Done(id=0)), script.answer(refused))
        assert isinstance(error, StartFailed)
