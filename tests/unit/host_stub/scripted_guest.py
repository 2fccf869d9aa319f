"""A guest that answers as its test says, over streams in memory, on the wire as it really is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio
import trio.testing

from coworkd.client.aio import AsyncClient
from coworkd.model.errors import CoworkError, Unavailable, Unimplemented
from coworkd.wire.connection import Connection, Request
from coworkd.wire.fault import compose_fault


class ScriptedGuest:
    """`answers` maps a method to what it answers; `hello` and `events.subscribe` are there already.

    `frozen`: nothing is answered. `away`: nobody can connect.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.boot_id = "boot-1"
        self.started_at = 100.0
        self.degraded: dict[str, str] = {}
        self.frozen = False
        self.away = False
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Mapping[str, Any]]] = {
            "hello": lambda _: self._hello(),
            "events.subscribe": lambda _: {"next": 1, "missed": 0},
        }
        self.dialled = 0
        self._nursery = nursery
        self._links: list[tuple[trio.abc.Stream, Connection]] = []

    async def dial(self, timeout_s: float) -> AsyncClient:
        self.dialled += 1
        if self.away:
            raise Unavailable("nobody is there")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        client = AsyncClient(ours)
        try:
            with trio.fail_after(timeout_s):
                await client.greet("test")
        except trio.TooSlowError:
            await client.aclose()
            raise Unavailable("hello was not answered") from None
        return client

    async def hang_up(self) -> None:
        links, self._links = self._links, []
        for stream, _ in links:
            await trio.aclose_forcefully(stream)

    async def notify(self, name: str, **params: Any) -> None:
        for stream, connection in self._links:
            await stream.send_all(connection.send_notification(name, params))

    def _hello(self) -> dict[str, Any]:
        stage = {"name": "start", "started_at": self.started_at, "took_s": 0.5, "error": None}
        return {
            "protocol": 1,
            "version": "9",
            "boot_id": self.boot_id,
            "features": [],
            "stages": [stage],
            "degraded": dict(self.degraded),
        }

    async def _serve(self, stream: trio.abc.Stream) -> None:
        link = (stream, Connection("guest"))
        self._links.append(link)
        try:
            await self._talk(*link)
        finally:
            if link in self._links:
                self._links.remove(link)

    async def _talk(self, stream: trio.abc.Stream, connection: Connection) -> None:
        while True:
            try:
                data = bytes(await stream.receive_some())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            connection.receive_data(data)
            while (event := connection.next_event()) is not None:
                assert isinstance(event, Request)
                if not self.frozen:
                    await self._answer(stream, connection, event)

    async def _answer(self, stream: trio.abc.Stream, connection: Connection, request: Request) -> None:
        self.calls.append((request.method, request.params))
        try:
            if request.method not in self.answers:
                raise Unimplemented(f"no method {request.method}")
            frame = connection.send_response(request.id, dict(self.answers[request.method](request.params)))
        except CoworkError as error:
            frame = connection.send_error(request.id, compose_fault(error))
        if request.method == "hello":
            connection.greeted()
        try:
            await stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
