"""The health port: every endpoint of `[health]`, each with a thread that answers on it.

Rules
- An endpoint that cannot be listened on (no vsock device yet, a port that is taken) is `degraded`, and tried again every `RETRY_S`.
- The unix socket is 0600 from its first moment, and on vsock only the host is heard, as at the door.
- What the threads need is loaded in a thread: hosts are answered meanwhile.

Not here: what is told (`services.health_answers`), and how a client is served (`services.health_thread`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from coworkd.config import HealthConfig
from coworkd.model.errors import CoworkError
from coworkd.rpc.listen import UnixListener, is_host, listen_vsock
from coworkd.services.health import Health
from coworkd.wire.endpoint import UnixEndpoint, VsockPort, parse_served_endpoint

if TYPE_CHECKING:
    from coworkd.services.health_thread import HealthThread

RETRY_S = 1.0


class HealthPort:
    """`serve` is all of it."""

    def __init__(self, config: HealthConfig, *, health: Health) -> None:
        self._config = config
        self._health = health

    async def serve(self) -> None:
        """Have every endpoint answered, until cancelled."""
        async with trio.open_nursery() as nursery:
            for uri in self._config.endpoints:
                nursery.start_soon(self._serve, uri)

    async def _serve(self, uri: str) -> None:
        said = f"health port {uri}"
        make = await trio.to_thread.run_sync(self._load)
        while True:
            try:
                with self._listening(uri, make):
                    self._health.degrade(said, None)
                    await trio.sleep_forever()
            except CoworkError as error:
                self._health.degrade(said, error.message)
            await trio.sleep(RETRY_S)

    @contextmanager
    def _listening(self, uri: str, make: Callable[..., HealthThread]) -> Iterator[None]:
        """Raises `AlreadyExists`, `Unavailable`."""
        endpoint = parse_served_endpoint(uri)
        if isinstance(endpoint, UnixEndpoint):
            listening = UnixListener(endpoint)
            thread, done = make(listening.socket), listening.remove
        else:
            assert isinstance(endpoint, VsockPort)
            thread, done = make(listen_vsock(endpoint), may_come=is_host), _nothing_to_remove
        thread.start()
        try:
            yield
        finally:
            thread.close()
            done()

    def _load(self) -> Callable[..., HealthThread]:
        from coworkd.services.health_answers import Answers
        from coworkd.services.health_thread import HealthThread

        answers = Answers(self._health, stuck_s=self._config.stuck_s)
        return lambda listener, **more: HealthThread(listener, answers.answer, **more)


def _nothing_to_remove() -> None:
    """A vsock port leaves no name."""
