"""A coworkd whose profile `asking` has deletes in `rw` folders ask a person, for the tests of approvals and activity."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coworkd.client.sync import Client
from coworkd.model.calls import Approval
from coworkd.model.errors import CoworkError
from coworkd.model.event import Event
from coworkd.model.policy import FolderMode
from coworkd.model.session import FolderGrant
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import WAIT_S, client_of, session_of

PROFILE = 'inherits = "default"\n\n[sandbox]\nask_delete = true\n'


@contextlib.contextmanager
def asking_daemon(directory: Path) -> Iterator[Daemon]:
    profiles = directory / "policies" / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    (profiles / "asking.toml").write_text(PROFILE)
    with running_daemon(directory / "run", "--policies", str(directory / "policies")) as daemon:
        yield daemon


class Listener:
    """Hears every event of a coworkd, over a link of its own."""

    def __init__(self, daemon: Daemon) -> None:
        self.events: list[Event] = []
        self._client = client_of(daemon)
        self._subscription = self._client.events(after=0)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def of(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The parameters of those of that name with these fields."""
        return [
            event.params
            for event in list(self.events)
            if event.name == name and all(event.params.get(key) == value for key, value in fields.items())
        ]

    def wait(self, true: Callable[[], Any], what: str) -> Any:
        """Until that is so; what it gave."""
        deadline = time.monotonic() + WAIT_S
        while not (found := true()):
            assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}; heard {self.events[-20:]}"
            time.sleep(0.01)
        return found

    def close(self) -> None:
        self._client.close()
        self._thread.join()

    def _listen(self) -> None:
        with contextlib.suppress(CoworkError):
            for event in self._subscription:
                self.events.append(event)


def tree(place: Path, *files: str) -> Path:
    """A host directory with these files."""
    place.mkdir(parents=True, exist_ok=True)
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"{name}\n")
    return place


@contextlib.contextmanager
def session_with(
    client: Client, name: str, *folders: tuple[Path, FolderMode], profile: str = "asking"
) -> Iterator[str]:
    """A session with folders named `f`, `g`, …"""
    with session_of(client, name, profile=profile, folders=_grants(folders)) as session:
        yield session


def ensure_with(client: Client, name: str, *folders: tuple[Path, FolderMode], profile: str = "asking") -> str:
    """The same, and whoever makes it deletes it."""
    client.session_ensure(name=name, profile=profile, folders=_grants(folders))
    return name


def _grants(folders: tuple[tuple[Path, FolderMode], ...]) -> list[FolderGrant]:
    return [
        FolderGrant(name=chr(ord("f") + number), source=str(source), mode=mode)
        for number, (source, mode) in enumerate(folders)
    ]


def open_approvals(client: Client, session: str) -> tuple[Approval, ...]:
    return client.approval_list(session=session).approvals


def wait_for_approval(
    client: Client, session: str, true: Callable[[Approval], bool] = lambda approval: True
) -> Approval:
    """The first question that is so."""
    deadline = time.monotonic() + WAIT_S
    while True:
        found = [each for each in open_approvals(client, session) if true(each)]
        if found:
            return found[0]
        assert time.monotonic() < deadline, f"nothing is asked: {open_approvals(client, session)}"
        time.sleep(0.01)


def contents(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))
