"""The words between coworkd and its launcher, and names: any bytes give a word or a typed end, and descriptors never leak."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.launcher import tree
from coworkd.launcher.errand import ErrandError
from coworkd.launcher.folder_request import find_problem
from coworkd.launcher.folder_source import look_up
from coworkd.launcher.link import SupervisorLink
from coworkd.launcher.process import Process
from coworkd.launcher.spawn import is_name
from coworkd.launcher.status import StatusReader
from coworkd.model.errors import START_STAGES, InvalidParams
from coworkd.model.launch import MountFolder, Request, TreeFileBind
from coworkd.model.names import parse_folder_name, parse_process_id, parse_session_name
from coworkd.services.folders_judging import parse_listening
from coworkd.system.proc_connector import parse_event
from tests.unit.launcher.launcher_room import Sandbox, open_fds

EXAMPLES = settings(max_examples=60, deadline=None)
texts = st.one_of(st.text(max_size=70), st.text("abz09-._/ \n\0", max_size=40))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=9), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=8,
)
tags = st.sampled_from(
    (
        *("spawn", "open_session", "make_socket", "close_session", "ping", "keep", "put_filter", "adopt", "signal"),
        *("mount_folder", "unmount_folder", "start_worker", "kill_worker", "own_mount"),
    )
)
words = st.builds(
    lambda tag, rest: {**rest, "type": tag}, tags, st.dictionaries(st.text(max_size=9), plain, max_size=4)
)
packets = st.one_of(st.binary(max_size=80), words.map(msgspec.msgpack.encode))


@EXAMPLES
@given(packets, st.integers(0, 3))
def test_any_packet_is_a_request_or_the_end(packet: bytes, count: int) -> None:
    before = open_fds()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = SupervisorLink(ours)
    with theirs:
        fds = [os.memfd_create("x") for _ in range(count)]
        socket.send_fds(theirs, [packet], fds)
        for fd in fds:
            os.close(fd)
        received = link.receive()
        if received is None:
            assert link.closed
        else:
            assert isinstance(received[0], Request)
            for fd in received[1]:
                os.close(fd)
    link.close()
    assert open_fds() == before


@EXAMPLES
@given(st.lists(st.one_of(st.binary(max_size=30), plain.map(msgspec.json.encode)), max_size=5))
def test_any_status_is_read_to_its_end(lines: list[bytes]) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    os.write(write, b"\n".join(lines))
    os.close(write)
    reader = StatusReader(read)
    reader.drain()
    reader.close()
    assert reader.ended
    assert all(value is None or isinstance(value, int) for value in (reader.init_pid, reader.exit_code))


@EXAMPLES
@given(st.binary(max_size=40) | st.from_regex(rb"\+[0-9]{1,22} ?.{0,3}", fullmatch=True))
def test_any_words_of_a_shim_are_a_start_or_a_stage(said: bytes) -> None:
    sandbox = Sandbox(shim=True)
    process: Process = sandbox.process
    process.shim_said = said
    process.learn_shim()
    error = process.setup_error
    sandbox.close()
    assert sandbox.bwrap.executed is bool(re.fullmatch(rb"\+[0-9]{1,20} ", said))
    assert error is None or error[0] in START_STAGES


@EXAMPLES
@given(st.binary(max_size=90))
def test_any_netlink_bytes_are_an_event_or_nothing(data: bytes) -> None:
    event = parse_event(data)
    assert event is None or all(isinstance(field, int) for field in event)


@EXAMPLES
@given(texts)
def test_a_name_that_is_taken_is_one_safe_component(text: str) -> None:
    for parse in (parse_session_name, parse_folder_name, parse_process_id):
        with contextlib.suppress(InvalidParams):
            name = parse(text)
            assert name == text
            assert name not in ("", ".", "..")
            assert not {"/", "\0", "\n"} & set(name)
    if is_name(text):
        assert text not in ("", ".", "..")
        assert "/" not in text


steps = st.lists(st.sampled_from([b"..", b".", b"a", b"link", b"up", b"file", b"", b"x" * 300, b"\0"]), max_size=5)


@EXAMPLES
@given(steps, st.booleans())
def test_any_place_of_a_file_is_below_the_root_or_refused(parts: list[bytes], make: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        outside, root = os.path.join(directory, "file"), os.path.join(directory, "root")
        os.makedirs(os.path.join(root, "a"))
        for path in (outside, os.path.join(root, "file"), os.path.join(root, "a", "file")):
            with open(path, "wb") as file:
                file.write(b"untouched")
        os.symlink("../file", os.path.join(root, "link"))
        os.symlink("..", os.path.join(root, "up"))
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError, ValueError):
                entry = TreeFileBind(source=b"/x", path=b"/" + b"/".join(parts), make=make)
                found = tree._open_covered(root_fd, entry)
                assert os.readlink(f"/proc/self/fd/{found}").startswith(f"{root}/")
                os.close(found)
        finally:
            os.close(root_fd)
        assert sorted(os.listdir(directory)) == ["file", "root"]


@EXAMPLES
@given(steps)
def test_any_source_of_a_folder_is_below_its_root_or_refused(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = os.path.join(directory, "root")
        os.makedirs(os.path.join(root, "a", "a"))
        for path in (os.path.join(directory, "file"), os.path.join(root, "file")):
            os.close(os.open(path, os.O_CREAT))
        os.symlink("../file", os.path.join(root, "link"))
        os.symlink("..", os.path.join(root, "up"))
        source = b"/".join(parts)
        request = MountFolder(id=0, session="bob", name="x", root=os.fsencode(root), source=source, mode="ro")
        try:
            found, _ = look_up(request)
        except (ErrandError, OSError, ValueError):
            return
        assert (os.readlink(f"/proc/self/fd/{found}") + "/").startswith(f"{root}/")
        os.close(found)
        if find_problem(request) is None:
            assert parts == [b"."] or not {b"", b"..", b"."} & set(parts)


@EXAMPLES
@given(st.binary(max_size=60), texts, st.floats())
def test_any_words_of_a_folder_are_a_request_or_a_problem(path: bytes, name: str, deadline_s: float) -> None:
    request = MountFolder(
        id=0, session="bob", name=name, root=b"/", source=path, mode="ro", journal=path, deadline_s=deadline_s
    )
    if find_problem(request) is None:
        assert 0 < deadline_s <= 60
        assert b"\0" not in path
        assert b".." not in path.split(b"/")
        assert "/" not in name


@EXAMPLES
@given(st.text(max_size=200))
def test_any_table_of_sockets_gives_absolute_paths(text: str) -> None:
    assert all(path.startswith("/") for path in parse_listening("header\n" + text))
