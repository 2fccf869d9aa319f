"""The words between coworkd and its workers, both ways: any packet is a word or the end, whoever waits hears, and no descriptor stays."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, get_args

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from coworkd.model import disk, files, measure, share, stage, tool, update, watch
from coworkd.model.folder import FromFolder
from coworkd.system.worker_link import WorkerLink
from coworkd.system.worker_socket import WorkerSocket
from tests.unit.launcher.launcher_room import open_fds

EXAMPLES = settings(max_examples=25, deadline=None)
ASKED = 3
TO_WORKERS: dict[str, Any] = {
    "disk": disk.Request,
    "files": files.ToWorker,
    "files finish": files.Finish,
    "measure": measure.MeasureRequest,
    "share": share.Request,
    "stage": stage.ToStage,
    "tool": tool.ToolRequest,
    "update": update.Request,
    "watch": watch.ToWatcher,
}
FROM_WORKERS: dict[str, Any] = {
    "disk": disk.Answer,
    "files": files.FromWorker,
    "files end": files.TransferEnd,
    "folder": FromFolder,
    "measure": measure.MeasureAnswer,
    "share": share.Answer,
    "stage": stage.FromStage,
    "tool": tool.ToolAnswer,
    "update": update.Answer,
    "watch": watch.FromWatcher,
}
numbers = st.one_of(st.integers(0, ASKED + 1), st.integers(-(2**63), 2**64 - 1))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.floats(), st.binary(max_size=9), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=6,
)


class Asked(Struct, kw_only=True):
    """A request of ours."""

    id: int


def nearly(words: Any) -> st.SearchStrategy[bytes]:
    """Packets that say nearly one of `words`: its tag and its fields, with anything in them; or anything."""
    return st.one_of(
        st.binary(max_size=40),
        plain.map(msgspec.msgpack.encode),
        *(_nearly_one(kind) for kind in get_args(words) or (words,)),
    )


def _nearly_one(kind: type[Struct]) -> st.SearchStrategy[bytes]:
    tag, field = kind.__struct_config__.tag, kind.__struct_config__.tag_field
    named = {} if field is None else {field: st.just(tag)}
    fields = {name: numbers if name == "id" else plain for name in kind.__struct_encode_fields__}
    return st.fixed_dictionaries(named, optional=fields).map(msgspec.msgpack.encode)


def give(connection: socket.socket, packet: bytes, count: int) -> None:
    """Send it with so many descriptors, which stay with nobody here; a peer that hung up takes nothing."""
    fds = [os.memfd_create("x") for _ in range(count)]
    with contextlib.suppress(OSError):
        socket.send_fds(connection, [packet], fds)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("name", TO_WORKERS)
@EXAMPLES
@given(data=st.data())
def test_any_packet_is_a_request_of_a_worker_or_the_end(name: str, data: st.DataObject) -> None:
    packet, count = data.draw(nearly(TO_WORKERS[name])), data.draw(st.integers(0, 3))
    before = open_fds()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        give(theirs, packet, count)
        received = WorkerSocket(ours, msgspec.msgpack.Decoder(TO_WORKERS[name])).receive()
        if received is not None:
            assert isinstance(received[0], get_args(TO_WORKERS[name]) or TO_WORKERS[name])
            for fd in received[1]:
                os.close(fd)
    assert open_fds() == before


@pytest.mark.parametrize("name", FROM_WORKERS)
@EXAMPLES
@given(data=st.data())
def test_any_packets_of_a_worker_answer_who_waits_or_end_it(name: str, data: st.DataObject) -> None:
    packets = data.draw(st.lists(st.tuples(nearly(FROM_WORKERS[name]), st.integers(0, 2)), max_size=6))
    before = open_fds()
    trio.run(_talk, FROM_WORKERS[name], packets)
    assert open_fds() == before


async def _talk(words: Any, packets: list[tuple[bytes, int]]) -> None:
    kinds = get_args(words) or (words,)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers: list[object] = []

    def hear(notice: Any, fds: list[int]) -> None:
        assert isinstance(notice, kinds)
        for fd in fds:
            os.close(fd)

    async def ask(link: WorkerLink[Any]) -> None:
        try:
            answer, fds = await link.ask(Asked(id=0))
        except ConnectionResetError as error:
            answers.append(error)
            return
        assert isinstance(answer, kinds)
        answers.append(answer)
        for fd in fds:
            os.close(fd)

    link: WorkerLink[Any] = WorkerLink(ours.detach(), decoder=msgspec.msgpack.Decoder(words), on_notice=hear)
    with theirs:
        async with trio.open_nursery() as nursery:
            await nursery.start(link.serve)
            for _ in range(ASKED):
                nursery.start_soon(ask, link)
            await trio.testing.wait_all_tasks_blocked()
            for packet, count in packets:
                give(theirs, packet, count)
            theirs.close()
    assert len(answers) == ASKED
    assert link.why is not None
