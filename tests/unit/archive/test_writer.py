import io
import tarfile

import pytest

from coworkd.archive.entry import Entry
from coworkd.archive.writer import END, compose_entry, padding


def read_back(*entries: Entry, data: bytes = b"") -> list[tarfile.TarInfo]:
    whole = b"".join(compose_entry(entry) + (data + padding(len(data)) if entry.size else b"") for entry in entries)
    with tarfile.open(fileobj=io.BytesIO(whole + END), errors="surrogateescape") as tar:
        return tar.getmembers()


@pytest.mark.parametrize(
    "path", [b"a", b"n" * 100, b"n" * 101, b"d/" * 1000 + b"x", "\u00e9".encode(), b"\xff\xfe", b"new\nline"]
)
def test_a_name_is_read_back_by_others(path: bytes) -> None:
    (member,) = read_back(Entry(path=path, kind="file"))
    assert member.name.encode("utf-8", "surrogateescape") == path


def test_links_and_directories_are_read_back() -> None:
    link, directory, hard = read_back(
        Entry(path=b"l", kind="symlink", target=b"t" * 150, mode=0o777),
        Entry(path=b"d", kind="directory", mode=0o750),
        Entry(path=b"h", kind="hardlink", target=b"l"),
    )
    assert (link.issym(), link.linkname) == (True, "t" * 150)
    assert (directory.isdir(), directory.mode) == (True, 0o750)
    assert (hard.islnk(), hard.linkname) == (True, "l")


def test_set_id_bits_and_owners_are_not_told() -> None:
    (member,) = read_back(Entry(path=b"a", kind="file", mode=0o6755))
    assert (member.mode, member.uid, member.gid, member.uname) == (0o755, 0, 0, "")


def test_a_time_has_its_fraction_and_a_plain_one_no_extended_header() -> None:
    assert len(compose_entry(Entry(path=b"a", kind="file", mtime_ns=5 * 10**9))) == 512
    (member,) = read_back(Entry(path=b"a", kind="file", mtime_ns=1_500_000_000))
    assert member.mtime == 1.5


def test_a_size_from_8_gib_on_is_in_an_extended_header() -> None:
    header = compose_entry(Entry(path=b"big", kind="file", size=8**11))
    assert len(header) == 3 * 512
    assert b"19 size=8589934592\n" in header


def test_a_record_counts_its_own_digits() -> None:
    for length in range(80, 120):
        header = compose_entry(Entry(path=b"\xc3\xa9" * length, kind="file"))
        record = header[512:].split(b"\n")[0] + b"\n"
        assert int(record.split(b" ")[0]) == len(record)


def test_what_has_no_place_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="other"):
        compose_entry(Entry(path=b"fifo", kind="other"))
