"""The `tool` worker over its socket: one answer a request, and the end with coworkd's end."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest

from coworkd.model.tool import FetchTool, ToolAnswer, ToolRefused
from coworkd.system import packet
from coworkd.workers import tool


def test_it_answers_and_ends_with_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "yield_to_others", lambda: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=tool.serve, args=(theirs,))
    thread.start()
    request = FetchTool(
        id=3,
        root=b"/nowhere",
        source=b"x",
        incoming=b"/nowhere",
        file_name=b"x",
        sha256="0" * 64,
        limit_bytes=1,
        limit_entries=1,
    )
    ours.settimeout(60)
    ours.send(msgspec.msgpack.encode(request))
    data, ancillary, flags, _ = ours.recvmsg(*packet.RECEIVE_ARGUMENTS)
    message, _ = packet.unpack(data, ancillary, flags)
    answer = msgspec.msgpack.decode(message, type=ToolAnswer)
    assert isinstance(answer, ToolRefused)
    assert (answer.id, answer.why) == (3, "disk")
    ours.close()
    thread.join(60)
    theirs.close()
    assert not thread.is_alive()
