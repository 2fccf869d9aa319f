"""Which coworkd a command talks to."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from coworkd.cli import control_link
from coworkd.cli.control_link import is_local, named_uri, open_client, read_token
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
