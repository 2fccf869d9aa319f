"""A coworkd that is killed and started again on the same directory, while its launcher lives on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

import trio

from tests.root.accounting import Books, cgroup_root
from tests.root.conftest import Daemon
from tests.root.live import client_of

Running = Callable[[], AbstractContextManager[Daemon]]


class Keeper:
    """Owns the running coworkd. `running` starts one, always on the same directory; entering starts the first."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._stack = ExitStack()
        self.daemon: Daemon

    def __enter__(self) -> Keeper:
        self.daemon = self._stack.enter_context(self._running())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    async def kill_and_start(self) -> None:
        """As `kill_and_start_blocking`, while other tasks go on."""
        await trio.to_thread.run_sync(self.kill_and_start_blocking)

    def kill_and_start_blocking(self) -> None:
        """Return once another coworkd is ready."""
        self.daemon.child.kill()
        assert self.daemon.child.wait(5) == -signal.SIGKILL
        self._stack.pop_all().close()
        self.daemon = self._stack.enter_context(self._running())

    def books(self) -> Books:
        """The accounts of the coworkd there is now."""
        with client_of(self.daemon) as client:
            launcher, egress = client.info().launcher_pid, client.egress_status().pid
        return Books(self.daemon.child.pid, launcher, cgroup_root(self.daemon), egress=egress or 0)
