from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import trio
import trio.testing

from coworkd.services.pressure_news import PressureNews
from tests.unit.services.process_house import in_trio, open_fds


@contextmanager
def file_with_news() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Urgent data of a socket stands for what the kernel tells (EPOLLPRI); sent by the first, it is news of the second."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            yield sender, receiver


@in_trio
async def test_each_piece_of_news_is_told_once_and_of_what_was_added_meanwhile() -> None:
    send, receive = trio.open_memory_channel[int](10)
    news = PressureNews()
    with file_with_news() as (first, first_file), file_with_news() as (second, second_file):
        async with trio.open_nursery() as nursery:
            news.add(first_file.fileno())
            nursery.start_soon(news.serve, send.send_nowait)
            first.send(b"!", socket.MSG_OOB)
            assert await receive.receive() == first_file.fileno()
            news.add(second_file.fileno())
            second.send(b"!", socket.MSG_OOB)
            assert await receive.receive() == second_file.fileno()
            nursery.cancel_scope.cancel()
    news.close()


@in_trio
async def test_what_was_removed_is_not_told() -> None:
    send, receive = trio.open_memory_channel[int](10)
    news = PressureNews()
    with file_with_news() as (first, first_file), file_with_news() as (second, second_file):
        async with trio.open_nursery() as nursery:
            for each in (first_file, second_file):
                news.add(each.fileno())
            news.remove(first_file.fileno())
            news.remove(first_file.fileno())
            first.send(b"!", socket.MSG_OOB)
            nursery.start_soon(news.serve, send.send_nowait)
            second.send(b"!", socket.MSG_OOB)
            assert await receive.receive() == second_file.fileno()
            nursery.cancel_scope.cancel()
    news.close()


@in_trio
async def test_the_thread_ends_with_it_and_nothing_stays_open() -> None:
    await trio.to_thread.run_sync(int)  # what trio itself keeps is there before
    before = open_fds()
    news = PressureNews()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.serve, os.close)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    news.close()
    assert open_fds() == before
