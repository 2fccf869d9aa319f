from __future__ import annotations

import os
from pathlib import Path

import pytest

from host_stub.vz import words
from host_stub.words import Disk, MachineSpec

SPEC = MachineSpec(
    architecture="aarch64",
    disks=(Disk(path=Path("/b/root"), serial="cowork-root"),),
    vsock=Path("/b/v"),
    serial_log=Path("/b/l"),
    state_dir=Path("/b/s"),
)
FROM_BACKEND: list[words.Message] = [
    words.Start(id=1, spec=SPEC, guest_ports=(5006,)),
    words.RequestStop(id=2),
    words.Kill(id=3),
    words.Pause(id=4),
    words.Resume(id=5),
    words.SetMemory(id=6, target_bytes=1 << 30),
    words.Connect(id=7, port=5005),
    words.Release(connection=8),
]
FROM_PROCESS: list[words.Message] = [
    words.Done(id=1, notes=("a",)),
    words.Failed(id=2, code="c", message="m", remedy="r", details={"d": 1}),
    words.Connected(id=3, connection=4, local_port=5),
    words.Incoming(connection=1, port=5006),
    words.Stopped(error="why"),
    words.Woke(),
]


def read_all(frames: words.Frames) -> list[tuple[words.Message, list[int]]]:
    found = []
    while (one := frames.next()) is not None:
        found.append(one)
    return found


@pytest.mark.parametrize(("kinds", "messages"), [(words.FromBackend, FROM_BACKEND), (words.FromProcess, FROM_PROCESS)])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_messages_arrive_as_sent_in_any_pieces(kinds: object, messages: list[words.Message], piece: int) -> None:
    frames = words.Frames(kinds)
    sent = b"".join(words.encode(message) for message in messages)
    fds = [os.open("/dev/null", os.O_RDONLY) for message in messages for _ in range(message.FDS)]
    frames.feed(b"", list(fds))
    found = []
    for start in range(0, len(sent), piece):
        frames.feed(sent[start : start + piece], [])
        found += read_all(frames)
    assert [message for message, _ in found] == messages
    assert [fd for _, received in found for fd in received] == fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x01\xc1",
        b"\0\0\0\0",
        words.encode(words.Done(id=1)),
        words.encode(words.Start(id=1, spec=SPEC, guest_ports=())),
        words.encode(words.Connect(id=1, port=5)).replace(b"port", b"porx"),
    ],
)
def test_what_no_peer_sends_is_refused_and_descriptors_are_closed(data: bytes) -> None:
    frames = words.Frames(words.FromBackend)
    fd = os.open("/dev/null", os.O_RDONLY)
    frames.feed(data, [fd])
    with pytest.raises(words.BrokenWords):
        frames.next()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_path_with_a_nul_is_refused() -> None:
    data = words.encode(words.Start(id=1, spec=SPEC, guest_ports=())).replace(b"/b/root", b"/b/ro\0t")
    frames = words.Frames(words.FromBackend)
    frames.feed(data, [])
    with pytest.raises(words.BrokenWords, match="no message"):
        frames.next()


def test_descriptors_without_a_message_are_bounded() -> None:
    frames = words.Frames(words.FromBackend)
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(words.FD_LIMIT + 1)]
    with pytest.raises(words.BrokenWords):
        frames.feed(b"", fds)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[-1])


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(words.BrokenWords, match="over the bound"):
        words.encode(words.Stopped(error="x" * words.FRAME_LIMIT_BYTES))
