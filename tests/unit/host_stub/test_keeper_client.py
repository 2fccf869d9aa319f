"""What the command line asks of a keeper. Its calls are tried against real keepers in test_keeper."""

from __future__ import annotations

import socket

import pytest

from host_stub import keeper_client
from host_stub.bundle import Bundle
from host_stub.keeper_client import open_keeper
from host_stub.words import Trouble


def test_no_keeper_is_no_trouble(bundle: Bundle) -> None:
    with open_keeper(bundle) as keeper:
        assert keeper is None


def test_a_socket_nobody_listens_at_is_no_keeper(bundle: Bundle) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(bundle.keeper_socket))
    with open_keeper(bundle) as keeper:
        assert keeper is None


def test_a_keeper_that_does_not_answer_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_client, "CONNECT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(bundle.keeper_socket))
        silent.listen()
        with pytest.raises(Trouble) as caught, open_keeper(bundle):
            pass
    assert caught.value.code == "keeper_silent"
