"""coworkd's end of a conversation with a worker, against a peer that is the test."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing
from msgspec import Struct

from coworkd.system import packet
from coworkd.system.worker_link import ASK_LIMIT, WorkerLink, ask_once
from tests.unit.services.process_house import in_trio, jump


class Ask(Struct, frozen=True, kw_only=True, tag="ask"):
    id: int
    text: str = ""


class Answer(Struct, frozen=True, kw_only=True, tag="answer"):
    id: int
    text: str = ""


class Told(Struct, frozen=True, kw_only=True, tag="told"):
    text: str


Reply = Answer | Told


class Peer:
    """A link that is served, and the other end of it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = trio.socket.from_stdlib_socket(theirs)
        self.notices: list[tuple[Reply, list[int]]] = []
        self.link: WorkerLink[Reply] = WorkerLink(
            ours.detach(),
            decoder=msgspec.msgpack.Decoder(Reply),
            on_notice=lambda word, fds: self.notices.append((word, fds)),
        )

    async def next(self) -> Ask:
        data, ancillary, flags, _ = await self.socket.recvmsg(*packet.RECEIVE_ARGUMENTS)
        message, fds = packet.unpack(data, ancillary, flags)
        for fd in fds:
            os.close(fd)
        return msgspec.msgpack.decode(message, type=Ask)

    async def say(self, word: Struct, *fds: int) -> None:
        data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(word), fds)
        await self.socket.sendmsg(data, ancillary)
        if memfd >= 0:
            os.close(memfd)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Peer, trio.Nursery]]:
    before = set(os.listdir("/proc/self/fd"))
    peer = Peer()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.link.serve)
        yield peer, nursery
        nursery.cancel_scope.cancel()
    peer.socket.close()
    peer.link.close()
    assert set(os.listdir("/proc/self/fd")) == before


@in_trio
async def test_answers_find_who_asked_in_any_order() -> None:
    async with served() as (peer, nursery):
        answers: dict[str, Reply] = {}

        async def ask(text: str) -> None:
            answers[text], _ = await peer.link.ask(Ask(id=0, text=text))

        for text in ("a", "b"):
            nursery.start_soon(ask, text)
        asked = [await peer.next(), await peer.next()]
        for each in reversed(asked):
            await peer.say(Answer(id=each.id, text=each.text.upper()))
        await trio.testing.wait_all_tasks_blocked()
        assert {key: word.text for key, word in answers.items()} == {"a": "A", "b": "B"}


@in_trio
async def test_long_messages_and_descriptors_travel_both_ways() -> None:
    async with served() as (peer, nursery):
        came: list[tuple[Reply, list[int]]] = []

        async def ask() -> None:
            came.append(await peer.link.ask(Ask(id=0, text="x" * 100_000)))

        nursery.start_soon(ask)
        asked = await peer.next()
        assert len(asked.text) == 100_000
        fd = os.memfd_create("x")
        await peer.say(Answer(id=asked.id, text="y" * 100_000), fd)
        os.close(fd)
        await trio.testing.wait_all_tasks_blocked()
        ((answer, fds),) = came
        assert (len(answer.text), len(fds)) == (100_000, 1)
        os.close(fds[0])


@in_trio
async def test_what_has_no_id_is_a_notice_and_comes_in_order() -> None:
    async with served() as (peer, _):
        for text in "abc":
            await peer.say(Told(text=text))
        await trio.testing.wait_all_tasks_blocked()
        assert [word.text for word, _ in peer.notices] == ["a", "b", "c"]


@in_trio
async def test_the_end_of_the_peer_fails_who_waits_and_all_later_ones() -> None:
    async with served() as (peer, nursery):
        failed: list[str] = []

        async def ask() -> None:
            with pytest.raises(ConnectionResetError) as caught:
                await peer.link.ask(Ask(id=0))
            failed.append(str(caught.value))

        nursery.start_soon(ask)
        await peer.next()
        peer.socket.close()
        await trio.testing.wait_all_tasks_blocked()
        await ask()
        assert len(failed) == 2
        assert "it has ended" in failed[1]
        assert peer.link.why == "it has ended"


@pytest.mark.parametrize("said", [b"\xc1", b"\x83\xa4type\xa6answer\xa2id\x01\xa4text\xa1\x80"])
def test_a_peer_that_breaks_the_words_has_ended(said: bytes) -> None:
    """The second is an answer whose text is no UTF-8."""

    @in_trio
    async def run() -> None:
        async with served() as (peer, _):
            await peer.socket.send(said)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ConnectionResetError, match="it broke off"):
                await peer.link.ask(Ask(id=0))

    run()


@in_trio
async def test_who_stops_waiting_loses_the_answer_and_its_descriptors() -> None:
    async with served() as (peer, nursery):
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                await peer.link.ask(Ask(id=0))

        nursery.start_soon(ask)
        asked = await peer.next()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        fd = os.memfd_create("x")
        await peer.say(Answer(id=asked.id), fd)
        os.close(fd)
        await peer.say(Told(text="after"))
        await trio.testing.wait_all_tasks_blocked()
        assert [word for word, _ in peer.notices] == [Told(text="after")]  # the answer was nobody's


@in_trio
async def test_requests_on_their_way_are_bounded() -> None:
    async with served() as (peer, nursery):
        done: list[int] = []

        async def ask() -> None:
            answer, _ = await peer.link.ask(Ask(id=0))
            assert isinstance(answer, Answer)
            done.append(answer.id)

        for _ in range(ASK_LIMIT + 1):
            nursery.start_soon(ask)
        for _ in range(ASK_LIMIT):
            asked = await peer.next()
        with trio.move_on_after(0) as nothing:
            await peer.next()
        assert nothing.cancelled_caught
        await peer.say(Answer(id=asked.id))
        assert (await peer.next()).id == ASK_LIMIT + 1


@in_trio
async def test_tell_waits_for_no_answer() -> None:
    async with served() as (peer, _):
        await peer.link.tell(Ask(id=7, text="do"))
        assert await peer.next() == Ask(id=7, text="do")


@in_trio
async def test_close_is_the_peers_end_of_file() -> None:
    async with served() as (peer, _):
        peer.link.close()
        assert await peer.socket.recv(10) == b""
        with pytest.raises(ConnectionResetError, match="it was closed"):
            await peer.link.tell(Ask(id=0))


class Errand:
    """`ask_once` in a task, and the other end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fd = ours.detach()
        self.socket = trio.socket.from_stdlib_socket(theirs)
        self.answer: Reply | None = None
        self.error: BaseException | None = None

    async def run(self, within_s: float = math.inf) -> None:
        try:
            decoder = msgspec.msgpack.Decoder(Reply)
            self.answer = await ask_once(self.fd, Ask(id=0, text="x"), decoder=decoder, within_s=within_s)
        except (ConnectionResetError, trio.TooSlowError) as error:
            self.error = error


@asynccontextmanager
async def errand(within_s: float = math.inf) -> AsyncIterator[Errand]:
    before = set(os.listdir("/proc/self/fd"))
    made = Errand()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run, within_s)
        await trio.testing.wait_all_tasks_blocked()
        yield made
        nursery.cancel_scope.cancel()
    made.socket.close()
    assert set(os.listdir("/proc/self/fd")) == before


@in_trio
async def test_an_errand_is_asked_once_and_its_descriptors_are_closed() -> None:
    async with errand() as made:
        fd = os.memfd_create("x")
        data, ancillary, _ = packet.pack(msgspec.msgpack.encode(Answer(id=1, text="done")), [fd])
        await made.socket.sendmsg(data, ancillary)
        os.close(fd)
        await trio.testing.wait_all_tasks_blocked()
        assert made.answer == Answer(id=1, text="done")
        assert msgspec.msgpack.decode(await made.socket.recv(1000), type=Ask).text == "x"
        assert await made.socket.recv(1000) == b""


@in_trio
async def test_an_errand_whose_worker_ends_says_why() -> None:
    async with errand() as made:
        await made.socket.recv(1000)  # unread it would be a reset
        made.socket.close()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(made.error, ConnectionResetError)
        assert made.error.strerror == "the worker does not answer, it has ended"


@in_trio
async def test_an_errand_that_takes_too_long_is_given_up() -> None:
    async with errand(within_s=5.0) as made:
        jump(5.0)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(made.error, trio.TooSlowError)
        assert msgspec.msgpack.decode(await made.socket.recv(1000), type=Ask).text == "x"
        assert await made.socket.recv(1000) == b""


@in_trio
async def test_an_errand_nobody_waits_for_any_more_leaves_nothing() -> None:
    async with errand():
        pass
