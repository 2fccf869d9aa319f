import errno
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coworkd.archive import unpack as unpacking
from coworkd.archive.entry import ArchiveError
from coworkd.archive.unpack import Unpack
from tests.unit.archive.test_reader import member, tar_of


def unpack(top: Path, data: bytes, *, step: int = 1000, limit: int = 100) -> Unpack:
    directory = os.open(top, os.O_RDONLY)
    try:
        with Unpack(directory, entries_limit=limit) as made:
            for position in range(0, len(data), step):
                made.receive_data(data[position : position + step])
            made.finish()
            return made
    finally:
        os.close(directory)


def refuse(top: Path, *members: tuple[tarfile.TarInfo, bytes], match: str | None = None) -> None:
    with pytest.raises((ArchiveError, OSError), match=match):
        unpack(top, tar_of(*members))
    left = [name for _, _, names in os.walk(top) for name in names if name.startswith(".coworkd-")]
    assert left == []


@pytest.fixture(params=["unnamed", "named"])
def top(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With and without files that have no name until they are whole."""
    if request.param == "named":
        monkeypatch.setattr(unpacking, "_UNNAMED", 0)
    (tmp_path / "top").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/keep").write_bytes(b"kept")
    return tmp_path / "top"


def test_files_directories_and_links_are_made_with_mode_and_time(top: Path) -> None:
    made = unpack(
        top,
        tar_of(
            (member("d", type=tarfile.DIRTYPE, mode=0o555, mtime=5), b""),
            (member("d/f", mode=0o640, mtime=7), b"x" * 5000),
            (member("l", type=tarfile.SYMTYPE, linkname="../outside/keep"), b""),
            (member("h", type=tarfile.LNKTYPE, linkname="d/f"), b""),
            (member("deep/er/f"), b"made its way"),
        ),
    )
    assert (made.entries, made.bytes) == (5, 5012)
    seen = os.stat(top / "d/f")
    assert (seen.st_mode & 0o7777, seen.st_mtime, seen.st_size, seen.st_nlink) == (0o640, 7, 5000, 2)
    assert (os.stat(top / "d").st_mode & 0o7777, os.stat(top / "d").st_mtime) == (0o555, 5)
    assert os.readlink(top / "l") == "../outside/keep"
    assert (top / "deep/er/f").read_bytes() == b"made its way"


def test_set_id_and_sticky_bits_are_dropped(top: Path) -> None:
    unpack(top, tar_of((member("f", mode=0o7755), b""), (member("d", type=tarfile.DIRTYPE, mode=0o7755), b"")))
    assert os.stat(top / "f").st_mode & 0o7777 == 0o755
    assert os.stat(top / "d").st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "..", "a/.."])
def test_a_name_that_leads_out_is_refused(top: Path, name: str) -> None:
    refuse(top, (member(name), b"evil"))
    assert sorted(os.listdir(top.parent)) == ["outside", "top"]


@pytest.mark.parametrize("target", ["../outside", "/tmp", "."])
def test_no_entry_is_reached_through_a_link_of_the_archive(top: Path, target: str) -> None:
    link = (member("l", type=tarfile.SYMTYPE, linkname=target), b"")
    for entry in (
        (member("l/evil"), b"evil"),
        (member("l/evil", type=tarfile.DIRTYPE), b""),
        (member("l/evil", type=tarfile.SYMTYPE, linkname="x"), b""),
        (member("l", type=tarfile.DIRTYPE), b""),
    ):
        refuse(top, link, entry, match="symbolic link")
    assert os.listdir(top.parent / "outside") == ["keep"]


def test_no_entry_is_reached_through_a_link_that_was_there(top: Path) -> None:
    (top / "l").symlink_to("../outside")
    refuse(top, (member("l/keep"), b"evil"), match="symbolic link")
    assert (top.parent / "outside/keep").read_bytes() == b"kept"


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_a_link_in_the_way_is_replaced_and_not_written_through(top: Path, kind: bytes) -> None:
    (top / "f").symlink_to("../outside/keep")
    unpack(top, tar_of((member("f", type=kind, linkname="new"), b"" if kind == tarfile.SYMTYPE else b"new")))
    assert (top.parent / "outside/keep").read_bytes() == b"kept"
    assert os.readlink(top / "f") == "new" if kind == tarfile.SYMTYPE else (top / "f").read_bytes() == b"new"


def test_a_directory_that_is_swapped_for_a_link_on_the_way_leads_nowhere(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The parent is held by a descriptor: what is renamed over its name afterwards is not looked at."""
    swapped: list[bool] = []

    def swapping(really: Callable[..., None]) -> Callable[..., None]:
        def swap_first(*args: object, **options: object) -> None:
            if not swapped:
                swapped.append(True)
                rename(top / "d", top / "aside")
                (top / "d").symlink_to("../outside")
            really(*args, **options)

        return swap_first

    rename = os.rename
    monkeypatch.setattr(os, "rename", swapping(os.rename))
    monkeypatch.setattr(os, "link", swapping(os.link))
    refuse(top, (member("d/keep"), b"evil"), (member("e/x"), b""), (member("d/keep"), b"evil"), match="symbolic link")
    assert (top.parent / "outside/keep").read_bytes() == b"kept"
    assert (top / "aside/keep").read_bytes() == b"evil"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_fifos_are_refused(top: Path, kind: bytes) -> None:
    refuse(top, (member("n", type=kind), b""), match="device or a fifo")


@pytest.mark.parametrize("target", ["../outside/keep", "/etc/passwd", "there", "d", "h", "d/../f"])
def test_a_hard_link_leads_only_to_a_file_that_came_before(top: Path, target: str) -> None:
    (top / "there").write_bytes(b"it was")
    members = [(member("d", type=tarfile.DIRTYPE), b""), (member("f"), b"fine")]
    refuse(top, *members, (member("h", type=tarfile.LNKTYPE, linkname=target), b""))
    assert not (top / "h").exists()


def test_a_hard_link_is_not_made_to_what_was_put_in_a_files_place(top: Path) -> None:
    """What is linked is never what a symbolic link leads to."""
    directory = os.open(top, os.O_RDONLY)
    data = tar_of((member("f"), b"fine"), (member("h", type=tarfile.LNKTYPE, linkname="f"), b""))
    with Unpack(directory, entries_limit=10) as made:
        made.receive_data(data[:1024])
        os.unlink(top / "f")
        (top / "f").symlink_to("../outside/keep")
        made.receive_data(data[1024:])
        made.finish()
    os.close(directory)
    assert os.readlink(top / "h") == "../outside/keep"
    assert os.stat(top.parent / "outside/keep").st_nlink == 1


def test_a_hard_link_to_itself_leaves_nothing_behind(top: Path) -> None:
    unpack(top, tar_of((member("f"), b"1"), (member("f", type=tarfile.LNKTYPE, linkname="f"), b"")))
    assert os.listdir(top) == ["f"]


def test_more_entries_than_may_be_are_refused(top: Path) -> None:
    with pytest.raises(ArchiveError, match="more than 3 entries"):
        unpack(top, tar_of(*((member(str(number)), b"") for number in range(4))), limit=3)
    assert sorted(os.listdir(top)) == ["0", "1", "2"]


def test_a_file_where_a_directory_is_and_the_other_way_round_are_told(top: Path) -> None:
    (top / "d").mkdir()
    (top / "f").touch()
    refuse(top, (member("d"), b"x"), match="directory")
    refuse(top, (member("f/x"), b"x"), match="not below a directory")


def test_what_breaks_off_leaves_what_was_whole(top: Path) -> None:
    data = tar_of((member("a"), b"whole"), (member("b"), b"x" * 5000))
    with pytest.raises(ArchiveError, match="cut short"):
        unpack(top, data[:3000])
    assert os.listdir(top) == ["a"]


def test_a_full_disk_is_told_with_the_entry_and_leaves_no_rest(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        unpack(top, tar_of((member("d/big"), b"x" * 100)))
    assert caught.value.filename == "d/big"
    assert os.listdir(top / "d") == []


def test_an_entry_for_the_top_is_a_directory_and_gives_it_its_mode(top: Path) -> None:
    unpack(top, tar_of((member(".", type=tarfile.DIRTYPE, mode=0o700), b"")))
    assert os.stat(top).st_mode & 0o777 == 0o700
    refuse(top, (member("."), b"x"), match="archive's top")


def test_names_and_times_of_any_kind_are_taken(top: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        tar.addfile(member("odd\n\udcff", mtime=1e11))
        tar.addfile(member("old", mtime=-1e11))
    unpack(top, made.getvalue())
    assert sorted(os.listdir(os.fsencode(top))) == [b"odd\n\xff", b"old"]


def test_what_is_killed_on_its_way_leaves_no_rest_where_files_need_no_name(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with Unpack(directory, entries_limit=10) as made:
        made.receive_data(tar_of((member("a"), b"x" * 5000))[:2000])
        assert os.listdir(tmp_path) == []
    os.close(directory)


def test_an_existing_file_is_replaced(top: Path) -> None:
    (top / "f").write_bytes(b"old")
    with open(top / "f", "rb") as reader:
        unpack(top, tar_of((member("f"), b"new")))
        assert reader.read() == b"old"
    assert (top / "f").read_bytes() == b"new"
    assert os.listdir(top) == ["f"]


def test_descriptors_are_all_closed(top: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    unpack(top, tar_of((member("a/b"), b"1"), (member("c/d"), b"2")))
    with pytest.raises(ArchiveError):
        unpack(top, tar_of((member("e/f"), b"1" * 3000))[:2000])
    assert len(os.listdir("/proc/self/fd")) == before


def test_paths_that_are_remembered_are_bounded_by_their_bytes(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "REMEMBERED_BYTES", 3)
    names = ["aa", "aa/bb", "aa/cc", "aa/cc/dd", "ee"]
    directories = [(member(name, type=tarfile.DIRTYPE, mode=0o750, mtime=9), b"") for name in names]
    unpack(top, tar_of(*directories, (member("aa/f"), b""), (member("g", type=tarfile.LNKTYPE, linkname="aa/f"), b"")))
    assert {os.stat(top / name).st_mode & 0o777 for name in names} == {0o750}
    assert os.stat(top / "aa").st_mtime == 9
    assert (top / "g").exists()
    many = [(member(f"f{number}"), b"") for number in range(5)]
    refuse(top, *many, (member("h", type=tarfile.LNKTYPE, linkname="f4"), b""), match="hard link leads to no file")


def test_a_directory_is_reached_from_where_the_last_one_lay(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    really = os.open

    def count(path: object, *args: object, **fields: object) -> int:
        opened.append(path)
        return really(path, *args, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", count)
    chain = [(member("/".join(["d"] * depth), type=tarfile.DIRTYPE, mode=0o700), b"") for depth in range(1, 40)]
    made = tar_of(*chain)
    directory = really(top, os.O_RDONLY)
    try:
        with Unpack(directory, entries_limit=100) as unpacking_it:
            unpacking_it.receive_data(made)
            assert len(opened) < 4 * len(chain)
            unpacking_it.finish()
    finally:
        os.close(directory)
