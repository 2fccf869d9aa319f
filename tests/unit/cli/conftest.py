"""A guest of a few lines behind every `coworkctl` of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from coworkd.cli import control_link
from coworkd.cli.control import main
from coworkd.client.sync import Client
from tests.unit.client.conftest import FakeGuest, exit_record

Ctl = Callable[..., int]

SESSION = {
    "name": "work",
    "uid": 1001,
    "gid": 1001,
    "home": "/sessions/work",
    "state": "ready",
    "profile": "default",
    "created_at": 0.0,
    "folders": [{"name": "src", "source": "/src", "mode": "ro"}],
    "processes": 2,
}


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGuest]:
    made = FakeGuest()
    made.answers["session.ensure"] = lambda params: {
        "session": {**SESSION, "name": params["name"]},
        "created": True,
        "failed_folders": [],
    }
    made.answers["session.delete"] = lambda params: {"name": params["session"]}
    made.answers["process.start"] = lambda _: {"process": "p1", "pid": 7, "started_at": 1.0}
    made.answers["process.forget"] = lambda _: {}
    made.answers["process.kill"] = lambda _: {}
    made.answers["process.wait"] = lambda _: exit_record()

    def connect(uri: str, *, token: str | None, client_name: str) -> Client:
        client = Client(made.host)
        client.greet(client_name, token)
        return client

    monkeypatch.setattr(control_link, "connect", connect)
    made.begin()
    yield made
    made.stop()


@pytest.fixture
def ctl(guest: FakeGuest) -> Ctl:
    return lambda *words: main(["--to", "unix:///fake", *words])
