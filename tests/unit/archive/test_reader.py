import io
import tarfile

import pytest

from coworkd.archive.entry import ArchiveError, Entry
from coworkd.archive.reader import EXTENDED_LIMIT_BYTES, ArchiveEnd, Data, Event, Reader, parse_records
from coworkd.archive.writer import END, compose_entry


def read(data: bytes, step: int = 1 << 20) -> list[Event]:
    """All that an archive tells, its end included."""
    reader, told = Reader(), []
    for position in range(0, len(data), step):
        reader.receive_data(data[position : position + step])
        while (event := reader.next_event()) is not None:
            told.append(event)
    reader.check_end()
    return told


def tar_of(*members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind, errors="surrogateescape") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["a", "d/" * 40 + "file", "x" * 99])
def test_what_others_write_is_read(kind: int, name: str) -> None:
    told = read(tar_of((member(name, mode=0o4751, mtime=12), b"hello"), kind=kind))
    assert told == [
        Entry(path=name.encode(), kind="file", mode=0o4751, size=5, mtime_ns=12 * 10**9),
        Data(data=b"hello", last=True),
        ArchiveEnd(),
    ]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", ["n" * 101, "long/" * 300 + "x", "\u00e9", "\udcff\udcfe", "with\nnewline"])
def test_long_and_odd_names_are_read(kind: int, name: str) -> None:
    path = name.encode("utf-8", "surrogateescape")
    entries = [event for event in read(tar_of((member(name), b""), kind=kind)) if isinstance(event, Entry)]
    assert [entry.path for entry in entries] == [path]


def test_kinds_and_targets_are_told() -> None:
    kinds = {
        tarfile.DIRTYPE: "directory",
        tarfile.SYMTYPE: "symlink",
        tarfile.LNKTYPE: "hardlink",
        tarfile.FIFOTYPE: "other",
        tarfile.CHRTYPE: "other",
        tarfile.BLKTYPE: "other",
        tarfile.AREGTYPE: "file",
        tarfile.CONTTYPE: "file",
    }
    for kind, told in kinds.items():
        first = read(tar_of((member("n", type=kind, linkname="t" * 120), b"")))[0]
        assert isinstance(first, Entry)
        assert (first.kind, first.target) == (told, b"t" * 120), kind


def test_a_directory_of_old_is_known_by_its_slash() -> None:
    first = read(tar_of((member("d/", type=tarfile.AREGTYPE), b"")))[0]
    assert isinstance(first, Entry)
    assert first.kind == "directory"


def test_times_have_fractions_and_may_lie_before_1970() -> None:
    for mtime_ns in (1_234_567_890_123_456_789, -1_500_000_000, 0):
        written = compose_entry(Entry(path=b"a", kind="file", mtime_ns=mtime_ns)) + END
        first = read(written)[0]
        assert isinstance(first, Entry)
        assert first.mtime_ns == mtime_ns


def test_a_size_over_8_gib_is_read_from_either_format() -> None:
    size = 9 * 2**30
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        header = member("big", size=size).tobuf(kind)
        reader = Reader()
        reader.receive_data(header)
        first = reader.next_event()
        assert isinstance(first, Entry)
        assert first.size == size


def test_any_step_gives_the_same_but_for_how_data_is_cut() -> None:
    whole = tar_of((member("a"), b"x" * 1000), (member("n" * 200), b"y" * 512), (member("e"), b""))
    told = read(whole)
    for step in (1, 7, 511, 512, 513):
        assert _joined(read(whole, step)) == _joined(told)


def _joined(events: list[Event]) -> list[object]:
    joined: list[object] = []
    for event in events:
        if isinstance(event, Data):
            if joined and isinstance(joined[-1], bytes):
                joined[-1] += event.data
            else:
                joined.append(event.data)
        else:
            joined.append(event)
    return joined


@pytest.mark.parametrize("cut", [1, 511, 512, 600, 1024, 1100])
def test_what_is_cut_short_is_told(cut: int) -> None:
    whole = tar_of((member("a"), b"x" * 600))
    with pytest.raises(ArchiveError, match=r"cut short|damaged"):
        read(whole[:cut])


def test_nothing_at_all_is_no_archive() -> None:
    with pytest.raises(ArchiveError):
        Reader().check_end()


def test_an_end_that_was_cut_in_its_padding_is_an_end() -> None:
    whole = tar_of((member("a"), b"x"))
    assert read(whole[: 1024 + 512])[-1] != ArchiveEnd()
    assert read(whole[: 1024 + 1024])[-1] == ArchiveEnd()


def test_what_comes_behind_the_end_is_passed_over() -> None:
    assert read(tar_of((member("a"), b"x")) + b"trash" * 1000)[-1] == ArchiveEnd()


def test_an_entry_behind_an_empty_block_is_damage() -> None:
    whole = tar_of((member("a"), b""))
    with pytest.raises(ArchiveError, match="damaged"):
        read(bytes(512) + whole)


def test_a_wrong_checksum_is_told_and_told_again() -> None:
    reader = Reader()
    reader.receive_data(b"\x1f\x8b\x08" + bytes(600))
    for _ in range(2):
        with pytest.raises(ArchiveError, match="checksum"):
            reader.next_event()
    with pytest.raises(ArchiveError, match="checksum"):
        reader.check_end()


def test_a_checksum_of_signed_bytes_is_taken() -> None:
    block = bytearray(member("\u00e9").tobuf(tarfile.USTAR_FORMAT))
    signed = sum(byte - 256 * (byte > 127) for byte in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % signed
    assert isinstance(read(bytes(block) + END)[0], Entry)


def test_an_extended_header_has_a_bound_that_is_judged_before_it_comes() -> None:
    header = member("x", type=tarfile.XHDTYPE, size=EXTENDED_LIMIT_BYTES + 1).tobuf(tarfile.USTAR_FORMAT)
    reader = Reader()
    reader.receive_data(header)
    with pytest.raises(ArchiveError, match="extended header"):
        reader.next_event()


def test_sparse_entries_are_refused() -> None:
    sparse = member("s", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ArchiveError, match="sparse"):
        read(sparse + END)
    with pytest.raises(ArchiveError, match="sparse"):
        parse_records(b"22 GNU.sparse.major=1\n")


def test_global_headers_hold_for_all_and_an_entrys_own_wins() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"mtime": "7.5"}) as tar:
        tar.addfile(member("a", mtime=1))
        tar.addfile(member("b", mtime=1.25))
    times = [event.mtime_ns for event in read(made.getvalue()) if isinstance(event, Entry)]
    assert times == [7_500_000_000, 1_250_000_000]


@pytest.mark.parametrize(
    "records",
    [b"6 a=b", b"x a=b\n", b"0 a=b\n", b"99 a=b\n", b"6 ab \n", b"-6 a=b\n", b"\n", b" 6 a=b\n", b"5 a=b\n", b"100000000000000000 a=b\n"],
)  # fmt: skip
def test_records_that_cannot_be_read_are_told(records: bytes) -> None:
    with pytest.raises(ArchiveError):
        parse_records(records)


def test_records_that_do_not_count_are_passed_over() -> None:
    assert parse_records(b"11 path=ab\n17 comment=hello\n13 mtime=1.0\n") == {b"path": b"ab", b"mtime": b"1.0"}


@pytest.mark.parametrize("record", [b"13 mtime=nan\n", b"15 mtime=1e999\n", b"11 size=-1\n", b"12 size=1.5\n"])
def test_numbers_that_are_none_are_told(record: bytes) -> None:
    extended = member("x", type=tarfile.XHDTYPE, size=len(record)).tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(ArchiveError, match=r"no number|no time|cannot be read"):
        read(extended + record.ljust(512, b"\0") + member("a").tobuf() + END)


def test_a_hard_link_with_bytes_of_its_own_is_told() -> None:
    with pytest.raises(ArchiveError, match="hard link"):
        read(member("l", type=tarfile.LNKTYPE, linkname="a", size=5).tobuf() + END)
