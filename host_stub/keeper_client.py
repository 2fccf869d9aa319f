"""What the command line asks of a keeper that runs: its control socket, by coworkd's own blocking client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from coworkd.client.sync import Client, connect
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.wire.convert import compose_answer, read_answer
from coworkd.wire.endpoint import UnixEndpoint
from host_stub.bundle import Bundle
from host_stub.keeper_words import EventsAnswer, EventsParams, GrowParams, Status, StopParams, trouble_of
from host_stub.words import MachineEvent, Trouble

A = TypeVar("A", bound=msgspec.Struct)
CONNECT_S = 5.0
CALL_S = 10.0
SPARE_S = 20.0
"""Beside what a call may take by itself: a machine that is killed has to be reaped."""


class KeeperGone(Exception):
    """The link ended: the keeper has ended, and its record says how."""


class KeeperClient:
    """Methods raise `Trouble`, or `KeeperGone`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def status(self) -> Status:
        return read_answer(self._call("status", {}, CALL_S), Status)

    def events(self, *, after: int, wait_s: float) -> tuple[tuple[MachineEvent, ...], int]:
        """Those behind `after`, and how many are gone; none where nothing happens for `wait_s`."""
        params = compose_answer(EventsParams(after=after, wait_s=wait_s))
        answer = read_answer(self._call("events", params, wait_s + CALL_S), EventsAnswer)
        return answer.events, answer.missed

    def stop(self, *, budget_s: float, reason: str) -> Status:
        params = compose_answer(StopParams(budget_s=budget_s, reason=reason))
        return read_answer(self._call("stop", params, budget_s + SPARE_S), Status)

    def restart(self, *, budget_s: float, reason: str) -> Status:
        params = compose_answer(StopParams(budget_s=budget_s, reason=reason))
        return read_answer(self._call("restart", params, budget_s + SPARE_S), Status)

    def kill(self) -> Status:
        return read_answer(self._call("kill", {}, SPARE_S), Status)

    def grow(self, size_bytes: int) -> None:
        self._call("grow", compose_answer(GrowParams(size_bytes=size_bytes)), SPARE_S)

    def _call(self, method: str, params: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            return self._client.call(method, params, timeout_s=timeout_s)
        except Unavailable as error:
            raise KeeperGone(error.message) from error
        except CoworkError as error:
            raise trouble_of(error) from error


@contextlib.contextmanager
def open_keeper(bundle: Bundle) -> Iterator[KeeperClient | None]:
    """A client of the keeper that runs the bundle, or None where none does. Raises `Trouble` where one does not answer."""
    try:
        client = connect(
            str(UnixEndpoint(path=str(bundle.keeper_socket))), client_name="cowork-vm", timeout_s=CONNECT_S
        )
    except Unavailable:
        yield None
        return
    except CoworkError as error:
        raise Trouble(
            "keeper_silent",
            f"the keeper of {bundle.path} does not answer: {error.message}",
            remedy="end it: kill the process that run/lock names; the machine ends with it",
        ) from error
    with client:
        yield KeeperClient(client)
