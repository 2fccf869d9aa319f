import struct

import pytest

from coworkd.folderfs import fuse_words
from coworkd.folderfs.fuse_words import HEADER, Op, ProtocolError, compose_answer, compose_error, parse_request
from tests.unit.folderfs.folder_room import PID, compose_request


def parse(data: bytes) -> fuse_words.Request:
    return parse_request(memoryview(data))


def test_structures_have_the_kernels_sizes() -> None:
    sizes = [
        (fuse_words.HEADER, 40),
        (fuse_words.OUT_HEADER, 16),
        (fuse_words.ATTR, 88),
        (fuse_words.ENTRY_HEAD, 40),
        (fuse_words.ATTR_HEAD, 16),
        (fuse_words.OPENED, 16),
        (fuse_words.STATFS, 80),
        (fuse_words.DIRENT, 24),
        (fuse_words.INIT_OUT, 64),
    ]
    assert [form.size for form, _ in sizes] == [size for _, size in sizes]


def test_a_name_and_its_caller() -> None:
    request = parse(compose_request(Op.LOOKUP, 7, (), b"caf\xe9 \n", unique=3))
    assert (request.opcode, request.node, request.unique, request.pid) == (Op.LOOKUP, 7, 3, PID)
    assert request.names == (b"caf\xe9 \n",)


def test_words_and_two_names() -> None:
    request = parse(compose_request(Op.RENAME2, 1, (5, 2), b"a", b"b"))
    assert request.words[:2] == (5, 2)
    assert request.names == (b"a", b"b")


def test_data_stands_after_the_words() -> None:
    request = parse(compose_request(Op.WRITE, 1, (4, 0, 3), data=b"\x00ab"))
    assert bytes(request.data) == b"\x00ab"


def test_an_attributes_value_stands_after_its_name() -> None:
    request = parse(compose_request(Op.SETXATTR, 1, (3, 0), b"user.a/b", data=b"1\x002"))
    assert request.names == (b"user.a/b",)
    assert bytes(request.data) == b"1\x002"


def test_extensions_at_the_end_are_not_the_requests() -> None:
    data = bytearray(compose_request(Op.LOOKUP, 1, (), b"a") + bytes(8))
    struct.pack_into("=I", data, 0, len(data))
    struct.pack_into("=H", data, 36, 1)
    assert parse(bytes(data)).names == (b"a",)


def test_an_opcode_nobody_knows_is_a_request() -> None:
    assert parse(HEADER.pack(40, 999, 5, 1, 0, 0, 0, 0, 0)).opcode == 999


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/"])
def test_a_name_is_one_component(name: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(compose_request(Op.UNLINK, 1, (), name))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(39),
        HEADER.pack(41, Op.LOOKUP, 5, 1, 0, 0, 0, 0, 0),
        HEADER.pack(40, Op.LOOKUP, 5, 1, 0, 0, 0, 0, 0),
        HEADER.pack(40, Op.READ, 5, 1, 0, 0, 0, 0, 0),
        HEADER.pack(42, Op.LOOKUP, 5, 1, 0, 0, 0, 0, 0) + b"ab",
        HEADER.pack(42, Op.LOOKUP, 5, 1, 0, 0, 0, 9, 0) + b"a\0",
        HEADER.pack(44, Op.SYMLINK, 5, 1, 0, 0, 0, 0, 0) + b"a\0b\xff",
        HEADER.pack(43, Op.SYMLINK, 5, 1, 0, 0, 0, 0, 0) + b"a\0\0",
    ],
)
def test_what_no_kernel_sends(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(data)


def test_where_a_link_points_may_be_any_string() -> None:
    assert parse(compose_request(Op.SYMLINK, 1, (), b"l", b"../a/b")).names == (b"l", b"../a/b")


def test_forgotten_nodes() -> None:
    data = struct.pack("=QQQQ", 5, 1, 6, 2)
    assert fuse_words.parse_forgets(parse(compose_request(Op.BATCH_FORGET, 0, (2,), data=data))) == [(5, 1), (6, 2)]
    with pytest.raises(ProtocolError):
        fuse_words.parse_forgets(parse(compose_request(Op.BATCH_FORGET, 0, (3,), data=data)))


def test_answers() -> None:
    assert compose_answer(7, b"abc") == struct.pack("=IiQ", 19, 0, 7) + b"abc"
    assert compose_error(7, 2) == struct.pack("=IiQ", 16, -2, 7)


def init(major: int, minor: int, offered: int) -> tuple[int, ...]:
    answer = fuse_words.compose_init(parse(compose_request(Op.INIT, 0, (major, minor, 65536, offered))))
    return fuse_words.INIT_OUT.unpack(answer)


def test_only_what_is_offered_is_taken() -> None:
    offered = fuse_words.Init.ASYNC_READ | fuse_words.Init.MAX_PAGES | 1 << 16 | 1 << 1
    major, minor, readahead, flags, *_ = init(7, 45, offered)
    assert (major, minor, readahead) == (7, fuse_words.MINOR, 65536)
    assert flags == fuse_words.Init.ASYNC_READ | fuse_words.Init.MAX_PAGES


def test_an_older_kernels_version_is_kept() -> None:
    assert init(7, 31, 0)[1] == 31


@pytest.mark.parametrize("version", [(6, 40), (8, 0), (7, 30)])
def test_a_kernel_of_another_protocol(version: tuple[int, int]) -> None:
    with pytest.raises(ProtocolError):
        init(*version, 0)
