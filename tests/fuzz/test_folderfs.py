"""Whatever is written to a folder's server, it answers and goes on; and whatever a session does, the user's names never get fewer.

Names are judged against a model that knows nothing of tries: a plain dictionary of paths.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from coworkd.folderfs.fuse_words import HEADER, ROOT_NODE, Op, ProtocolError, Request, parse_request
from coworkd.folderfs.journal import Added as AddedRecord
from coworkd.folderfs.journal import JournaledNames, compose_frame, parse_journal
from coworkd.folderfs.names import Identity, OwnNames
from coworkd.folderfs.names import Path as NamePath
from coworkd.system.file_calls import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.unit.folderfs.folder_room import Room, Served

_opcodes = st.one_of(st.sampled_from([int(op) for op in Op]), st.integers(0, 2**32 - 1))
_bodies = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"letter\0", b"kept\0", b"\0", b"..\0", b"a/b\0", bytes(8), bytes(4), b"\xff" * 8])).map(
        b"".join
    ),
)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes) -> None:
    _parse(data)


@given(_opcodes, _bodies, st.integers(0, 70))
def test_any_body_is_a_request_or_a_protocol_error(opcode: int, body: bytes, extensions: int) -> None:
    _parse(HEADER.pack(40 + len(body), opcode, 7, 1, 0, 0, 0, extensions, 0) + body)


def _parse(data: bytes) -> Request | None:
    try:
        return parse_request(memoryview(data))
    except ProtocolError as error:
        unique = error.unique
    assert unique == (struct.unpack_from("=Q", data, 8)[0] if len(data) >= 40 else 0)
    return None


@contextmanager
def _source() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coworkd-fuzz-") as name:
        place = Path(name) / "source"
        (place / "kept").mkdir(parents=True)
        (place / "letter").write_text("Dear all,\n")
        (place / "kept" / "photo").write_text("photo")
        yield place


_SILENT = {Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.DESTROY}
_nodes = st.sampled_from([0, 1, 1, 2, 3, 2**64 - 1])
_sent = st.lists(st.tuples(_opcodes, _nodes, _bodies), max_size=12)


@settings(max_examples=60, deadline=None)
@given(_sent)
def test_a_server_answers_each_request_once_and_goes_on(sent: list[tuple[int, int, bytes]]) -> None:
    with _source() as source:
        served = Served(source)
        try:
            for name in (b"letter", b"kept"):
                assert served.ask(Op.LOOKUP, ROOT_NODE, (), name)[0] == 0
            for unique, (opcode, node, body) in enumerate(sent, 100):
                served.send(HEADER.pack(40 + len(body), opcode, unique, node, 0, 0, 9, 0, 0) + body)
                if opcode in _SILENT and _parse(HEADER.pack(40 + len(body), opcode, 1, 1, 0, 0, 0, 0, 0) + body):
                    continue
                assert served.answer()[0] == unique
            assert served.ask(Op.STATFS, unique=5)[0] == 0
            assert (source / "kept" / "photo").exists()
        finally:
            served.close()


@given(st.binary(max_size=6000), st.integers(0, 5000))
def test_any_bytes_are_a_journal(data: bytes, cut: int) -> None:
    good = compose_frame(AddedRecord((b"a", b"b"), Identity(1, 2)))
    names, end = parse_journal(good + data, OwnNames())
    assert names.count >= 0
    assert len(good) <= end <= len(good) + len(data)
    parse_journal((good * 3)[:cut], OwnNames())


# -- names against a model ----------------------------------------------------------------------------------------

_names = st.sampled_from([b"a", b"b", b"c"])
_paths = st.lists(_names, min_size=1, max_size=3).map(tuple)
_identity = st.sampled_from([Identity(1, 1), Identity(2, 2)])
_own = st.one_of(st.none(), _identity)
_moves = st.lists(
    st.one_of(
        st.tuples(st.just("add"), _paths, _paths, _identity),
        st.tuples(st.just("remove"), _paths, _paths, _own),
        st.tuples(st.just("disown"), _paths, _paths, _own),
        st.tuples(st.just("move"), _paths, _paths, _own),
        st.tuples(st.just("swap"), _paths, _paths, _own),
    ),
    max_size=30,
)
Model = dict[NamePath, Identity]


@given(_moves)
def test_names_are_what_a_dictionary_of_paths_would_be(
    moves: list[tuple[str, NamePath, NamePath, Identity | None]],
) -> None:
    with tempfile.TemporaryFile() as file:
        names, model = JournaledNames(file.fileno()), Model()
        for what, one, other, own in moves:
            nested = one[: len(other)] == other or other[: len(one)] == one
            if what in ("move", "swap") and nested:  # the kernel refuses them
                continue
            model = _step(names, model, what, one, other, own)
            assert dict(names.names) == model
            assert names.names.count == len(model)
        assert dict(JournaledNames(file.fileno()).names) == model


def _below(model: Model, path: NamePath) -> Model:
    return {each[len(path) :]: own for each, own in model.items() if each[: len(path)] == path}


def _without(model: Model, *paths: NamePath) -> Model:
    return {each: own for each, own in model.items() if not any(each[: len(path)] == path for path in paths)}


def _placed(path: NamePath, below: Model, own: Identity | None) -> Model:
    placed = {(*path, *rest): identity for rest, identity in below.items() if rest}
    return placed | ({path: own} if own is not None else {})


def _step(
    names: JournaledNames, model: Model, what: str, one: NamePath, other: NamePath, own: Identity | None
) -> Model:
    match what:
        case "add":
            assert own is not None
            names.add(one, own)
            return _without(model, one) | {one: own}
        case "remove":
            names.remove(one)
            return _without(model, one)
        case "disown":
            names.disown(one)
            return {path: each for path, each in model.items() if path != one}
        case "move":
            names.move(one, other, own)
            return _without(model, one, other) | _placed(other, _below(model, one), own)
        case _:
            names.swap(one, other, own, None)
            rest = _without(model, one, other)
            return rest | _placed(one, _below(model, other), own) | _placed(other, _below(model, one), None)


# -- a session that tries everything ------------------------------------------------------------------------------

_FILES = [b"letter", b"photo", b"x", b"y", b"z"]
_acts = st.lists(
    st.tuples(
        st.sampled_from(["create", "unlink", "rename", "exchange", "noreplace", "link", "mkdir", "rmdir"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from(_FILES),
        st.sampled_from(_FILES),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(_acts)
def test_the_users_names_never_get_fewer(acts: list[tuple[str, int, int, bytes, bytes]]) -> None:
    """Only a rename over a user's name, which is writing, may end one: of two user's names then."""
    with _source() as source:
        (source / "d").mkdir()
        room = Room(source)
        try:
            directories = [ROOT_NODE, room.lookup(b"kept").node, room.lookup(b"d").node]
            users = _users_names(room)
            for what, first, second, name, other in acts:
                node, to = directories[first % 3], directories[second % 3]
                collapsing = _is_users(room, node, name) and _is_users(room, to, other)
                answer = _act(room, what, node, to, name, other)
                room.hear()
                assert answer != errno.EIO
                now = _users_names(room)
                fewer = len(users) - len(now)
                assert fewer <= (what == "rename" and collapsing and answer == b""), (what, name, other)
                users = now
        finally:
            room.close()


def _act(room: Room, what: str, node: int, to: int, name: bytes, other: bytes) -> object:
    match what:
        case "create":
            answer = room.ask(Op.CREATE, node, (os.O_RDWR | os.O_EXCL, 0o644), name)
            if isinstance(answer, bytes):
                room.ask(Op.RELEASE, 1, (room.handle(answer),))
            return answer
        case "unlink":
            return room.ask(Op.UNLINK, node, (), name)
        case "rename":
            return room.ask(Op.RENAME, node, (to,), name, other)
        case "exchange":
            return room.ask(Op.RENAME2, node, (to, RENAME_EXCHANGE), name, other)
        case "noreplace":
            return room.ask(Op.RENAME2, node, (to, RENAME_NOREPLACE), name, other)
        case "link":
            found = room.ask(Op.LOOKUP, node, (), name)
            if not isinstance(found, bytes):
                return found
            return room.ask(Op.LINK, to, (struct.unpack_from("=Q", found)[0],), other)
        case "mkdir":
            return room.ask(Op.MKDIR, node, (0o755,), name)
        case _:
            return room.ask(Op.RMDIR, node, (), name)


def _users_names(room: Room) -> set[bytes]:
    """Everything there that the session may not delete."""
    found = set()
    for root, directories, files in os.walk(os.fsencode(room.source)):
        for name in (*directories, *files):
            path = tuple(os.path.relpath(os.path.join(root, name), os.fsencode(room.source)).split(b"/"))
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
            try:
                if room.folder.own(fd, name, path) is None:
                    found.add(b"/".join(path))
            finally:
                os.close(fd)
    return found


def _is_users(room: Room, node: int, name: bytes) -> bool:
    parent = room.folder.nodes.get(node)
    directory = room.folder.nodes.directory(parent)
    if not os.access(name, os.F_OK, dir_fd=directory, follow_symlinks=False):
        return False
    return room.folder.own(directory, name, (*parent.path(), name)) is None
