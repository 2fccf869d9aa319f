"""Which coworkd a command talks to."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from coworkd.cli import control_link
from coworkd.cli.control_link import is_local, named_uri, open_client, read_token
from coworkd.model.calls import HelloAnswer
from coworkd.model.errors import InvalidParams, Unavailable


@pytest.fixture
def no_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(control_link, "SYSTEM_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.delenv("COWORKD_URI", raising=False)


def asked(to: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(to=to, token_file=None, command="ps")


def test_what_was_asked_for_goes_before_the_environment() -> None:
    environment = {"COWORKD_URI": "unix:///env"}
    assert named_uri(asked("unix:///asked"), environment) == "unix:///asked"
    assert named_uri(asked(), environment) == "unix:///env"
    assert named_uri(asked(""), environment) == ""


def test_the_systems_socket_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(control_link, "SYSTEM_SOCKET", str(tmp_path))
    assert named_uri(asked(), {}) == f"unix://{tmp_path}"


@pytest.mark.usefixtures("no_socket")
def test_without_any_it_is_our_own() -> None:
    assert named_uri(asked(), {}) is None
    assert is_local(asked())


@pytest.mark.usefixtures("no_socket")
def test_starting_one_without_root_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="sudo"), open_client(asked()):
        pass


def test_what_was_named_is_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"nothing\.sock"), open_client(asked(f"unix://{tmp_path}/nothing.sock")):
        pass


@pytest.mark.parametrize(
    ("uri", "local"), [("unix:///a", True), ("vsock://3:5005", False), ("hybrid:///a?port=1", False)]
)
def test_folders_are_local_only_without_a_vm(uri: str, local: bool) -> None:
    assert is_local(asked(uri)) is local


def test_the_token_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret \nmore\n")
    assert read_token(str(file)) == "secret"
    assert read_token(None) is None


@pytest.mark.parametrize("content", [None, "", "\n", "\ud800"])
def test_a_token_file_that_has_none_is_refused(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidParams, match="token"):
        read_token(str(file))


class ComingUp:
    """Connections to one coworkd: at a stage for the first `looks` of them, then up."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.made = 0
        self.closed = 0
        self.now = 0.0

    def connect(self, uri: str, **words: object) -> ComingUp:
        self.made += 1
        return self

    @property
    def hello(self) -> HelloAnswer:
        degraded = {"starting": "storage"} if self.made <= self.looks else {}
        return HelloAnswer(protocol=1, version="0", boot_id="b", features=(), stages=(), degraded=degraded)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> ComingUp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def at(monkeypatch: pytest.MonkeyPatch, coming: ComingUp) -> None:
    monkeypatch.setattr(control_link, "connect", coming.connect)
    monkeypatch.setattr("time.sleep", coming.sleep)
    monkeypatch.setattr("time.monotonic", lambda: coming.now)


def test_a_coworkd_that_is_coming_up_is_waited_for_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coming = ComingUp(looks=3)
    at(monkeypatch, coming)
    with open_client(asked("unix:///x")):
        assert (coming.made, coming.closed) == (4, 3)
    assert capsys.readouterr().err.count("coming up: storage") == 1


def test_what_is_answered_at_once_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    coming = ComingUp(looks=3)
    at(monkeypatch, coming)
    with open_client(argparse.Namespace(to="unix:///x", token_file=None, command="boot-time")):
        assert coming.made == 1


def test_one_that_never_comes_up_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    coming = ComingUp(looks=10**6)
    at(monkeypatch, coming)
    with pytest.raises(Unavailable, match="it is at storage"), open_client(asked("unix:///x")):
        pass
    assert coming.now == pytest.approx(control_link.COMING_UP_S, abs=1.0)
    assert coming.made == coming.closed
