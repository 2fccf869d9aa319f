from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from host_stub.vz import words
from host_stub.vz.control import ControlSocket, rights
from host_stub.vz.link import ProcessLink
from host_stub.words import Trouble


class Peer:
    """The process's end, played by hand: blocking, but only where something is there to read."""

    def __init__(self, connection: socket.socket) -> None:
        self.control = ControlSocket(connection, words.FromBackend)
        self.connection = connection

    async def receive(self) -> words.Message:
        received = await trio.to_thread.run_sync(self.control.receive)
        assert received is not None
        assert received[1] == []
        message: words.Message = received[0]
        return message


@asynccontextmanager
async def linked(news: list[words.Message] | None = None) -> AsyncIterator[tuple[ProcessLink, Peer]]:
    ours, theirs = socket.socketpair()
    seen = [] if news is None else news
    link = ProcessLink(ours, lambda message, _fds: seen.append(message))
    peer = Peer(theirs)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.serve)
            yield link, peer
            peer.control.close()
            await link.ended.wait()
            nursery.cancel_scope.cancel()


def drive(body: Callable[[], Awaitable[None]]) -> None:
    trio.run(body)


def test_answers_find_who_asked() -> None:
    async def body() -> None:
        async with linked() as (link, peer), trio.open_nursery() as nursery:
            answers: dict[int, tuple[str, ...]] = {}

            async def ask(port: int) -> None:
                answer, _ = await link.ask(words.Connect(id=0, port=port), words.Done)
                answers[port] = answer.notes

            for port in (1, 2, 3):
                nursery.start_soon(ask, port)
            asked = [await peer.receive() for _ in range(3)]
            for request in reversed(asked):
                assert isinstance(request, words.Connect)
                peer.control.send(words.Done(id=request.id, notes=(str(request.port),)))
            with trio.fail_after(60):
                while len(answers) < 3:
                    await trio.lowlevel.checkpoint()
            assert answers == {port: (str(port),) for port in (1, 2, 3)}

    drive(body)


def test_a_trouble_there_is_a_trouble_here() -> None:
    async def body() -> None:
        async with linked() as (link, peer), trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Trouble) as caught:
                    await link.ask(words.Kill(id=0), words.Done)
                trouble = caught.value
                assert (trouble.code, trouble.message, trouble.remedy, trouble.details) == ("c", "m", "r", {"d": 1})

            nursery.start_soon(ask)
            await peer.receive()
            peer.control.send(words.Failed(id=1, code="c", message="m", remedy="r", details={"d": 1}))

    drive(body)


@pytest.mark.parametrize(
    "junk", [b"", b"\xff\xff\xff\xff", words.encode(words.Connected(id=1, connection=1, local_port=1))]
)
def test_whoever_waits_is_told_when_the_process_ends_or_breaks_the_words(junk: bytes) -> None:
    async def body() -> None:
        async with linked() as (link, peer), trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Trouble) as caught:
                    await link.ask(words.Connect(id=0, port=1), words.Connected)
                assert caught.value.code == "vz_process_ended"

            nursery.start_soon(ask)
            await peer.receive()
            peer.connection.sendall(junk)
            if not junk:
                peer.control.close()
            await link.ended.wait()
            with pytest.raises(Trouble):
                await link.ask(words.Kill(id=0), words.Done)

    drive(body)


def test_an_answer_nobody_waits_for_is_given_back() -> None:
    async def body() -> None:
        async with linked() as (link, peer):
            with trio.move_on_after(0.01):
                await link.ask(words.Connect(id=0, port=1), words.Connected)
            assert isinstance(await peer.receive(), words.Connect)
            reading, writing = os.pipe()
            peer.control.send(words.Connected(id=1, connection=77, local_port=1), (writing,))
            os.close(writing)
            assert await peer.receive() == words.Release(connection=77)
            assert os.read(reading, 1) == b""  # nobody holds the other end
            os.close(reading)

    drive(body)


def test_an_answer_of_another_kind_is_no_answer() -> None:
    async def body() -> None:
        async with linked() as (link, peer), trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Trouble, match="it answered Done"):
                    await link.ask(words.Connect(id=0, port=1), words.Connected)

            nursery.start_soon(ask)
            await peer.receive()
            peer.control.send(words.Done(id=1))

    drive(body)


def test_news_come_in_order() -> None:
    async def body() -> None:
        news: list[words.Message] = []
        async with linked(news) as (_, peer):
            peer.control.send(words.Woke())
            peer.control.send(words.Stopped(error="x"))
            peer.control.close()
        assert news == [words.Woke(), words.Stopped(error="x")]

    drive(body)


def test_frames_with_descriptors_survive_being_sent_in_pieces() -> None:
    async def body() -> None:
        async with linked() as (link, peer), trio.open_nursery() as nursery:
            reading, writing = os.pipe()
            answers: list[list[int]] = []

            async def ask() -> None:
                _, fds = await link.ask(words.Connect(id=0, port=1), words.Connected)
                answers.append(fds)

            nursery.start_soon(ask)
            await peer.receive()
            data = words.encode(words.Connected(id=1, connection=1, local_port=1))
            peer.connection.sendmsg([data[:3]], rights((writing,)))
            await trio.testing.wait_all_tasks_blocked()
            peer.connection.sendall(data[3:])
            with trio.fail_after(60):
                while not answers:
                    await trio.lowlevel.checkpoint()
            for fd in (reading, writing, *answers[0]):
                os.close(fd)

    drive(body)


def test_last_news_are_heard_of_a_process_that_takes_nothing_any_more() -> None:
    """It says how the machine ended and goes; what is told to it meanwhile fails, and must not take the news along."""

    async def body() -> None:
        seen: list[words.Message] = []
        ours, theirs = socket.socketpair()
        link = ProcessLink(ours, lambda message, _fds: seen.append(message))
        peer = Peer(theirs)
        last = words.Woke()
        peer.control.send(last)
        peer.control.close()
        with trio.fail_after(60):
            with pytest.raises(Trouble, match="takes nothing"):
                await link.tell(words.Release(connection=1))
            await link.serve()
        assert seen == [last]

    drive(body)
