import errno
import os
from pathlib import Path

import pytest

from coworkd.model import files as words
from coworkd.workers import files_verbs
from coworkd.workers.files_view import Refused
from tests.unit.workers.files_talk import write


def read(path: Path, offset: int = 0, limit: int = 100) -> words.SomeRead:
    return files_verbs.read_some(words.ReadSome(id=1, path=os.fsencode(path), offset=offset, limit=limit))


def listed(path: Path, after: bytes = b"", limit: int = 1000) -> words.SomeListed:
    return files_verbs.list_some(words.ListSome(id=1, path=os.fsencode(path), after=after, limit=limit))


def move(path: Path, to: Path, *, overwrite: bool = False) -> None:
    files_verbs.move_entry(
        words.MoveEntry(id=1, path=os.fsencode(path), to=os.fsencode(to), overwrite=overwrite)
    )  # fmt: skip


def mkdir(path: Path, *, mode: int = 0o755, parents: bool = False) -> None:
    files_verbs.make_directory(words.MakeDirectory(id=1, path=os.fsencode(path), mode=mode, parents=parents))


def test_read_takes_a_piece_and_says_where_the_end_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read(tmp_path / "a", 2, 3) == words.SomeRead(id=1, data=b"234", size=10, eof=False)
    assert read(tmp_path / "a", 8, 3) == words.SomeRead(id=1, data=b"89", size=10, eof=True)
    assert read(tmp_path / "a", 10, 3) == words.SomeRead(id=1, data=b"", size=10, eof=True)
    assert read(tmp_path / "a", 2**62, 3) == words.SomeRead(id=1, data=b"", size=10, eof=True)
    assert read(tmp_path / "a", 0, 0) == words.SomeRead(id=1, data=b"", size=10, eof=False)


def test_read_of_a_hole_is_zeros(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    answer = read(tmp_path / "sparse", 1 << 39, 10)
    assert (answer.data, answer.size, answer.eof) == (bytes(10), 1 << 40, False)


def test_append_adds_and_tells_the_whole_size(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert files_verbs.write_whole(write(path, b"one", append=True)) == words.WholeWritten(id=0, size=3, atomic=False)
    assert files_verbs.write_whole(write(path, b"two", append=True)).size == 6
    assert path.read_bytes() == b"onetwo"
    with pytest.raises(FileExistsError):
        files_verbs.write_whole(write(path, b"", append=True, create="new"))
    with pytest.raises(FileNotFoundError):
        files_verbs.write_whole(write(tmp_path / "none", b"", append=True, create="existing"))


def test_append_to_a_fifo_with_a_reader_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(Refused):
            files_verbs.write_whole(write(tmp_path / "fifo", b"x", append=True))
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_write_with_parents_makes_them(tmp_path: Path) -> None:
    files_verbs.write_whole(write(tmp_path / "a/b/c", b"x", parents=True))
    assert (tmp_path / "a/b/c").read_bytes() == b"x"
    with pytest.raises(FileNotFoundError):
        files_verbs.write_whole(write(tmp_path / "d/e", b"x"))


def test_list_tells_each_entry_in_order_and_by_pages(tmp_path: Path) -> None:
    names = sorted(f"{n:05}".encode() for n in range(12_000))
    for name in names:
        (tmp_path / name.decode()).touch()
    told: list[bytes] = []
    more = True
    while more:
        page = listed(tmp_path, told[-1] if told else b"", 1000)
        told += [entry.name for entry in page.entries]
        more = page.more
    assert told == names


def test_a_page_is_stable_whatever_comes_and_goes(tmp_path: Path) -> None:
    for name in "bdfh":
        (tmp_path / name).touch()
    first = listed(tmp_path, limit=2)
    assert [entry.name for entry in first.entries] == [b"b", b"d"]
    assert first.more
    (tmp_path / "a").touch()
    (tmp_path / "b").unlink()
    second = listed(tmp_path, b"d", 2)
    assert [entry.name for entry in second.entries] == [b"f", b"h"]
    assert not second.more


def test_a_page_is_bounded_in_bytes(tmp_path: Path) -> None:
    target = "t/" * 2000
    for number in range(300):
        (tmp_path / f"{number:03}").symlink_to(target)
    page = listed(tmp_path, limit=1000)
    assert page.more
    assert 200 < len(page.entries) < 300
    assert listed(tmp_path, page.entries[-1].name).more is False


def test_list_tells_kinds_and_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("nowhere")
    os.mkfifo(tmp_path / "p")
    assert [(entry.name, entry.kind, entry.target) for entry in listed(tmp_path).entries] == [
        (b"d", "directory", None),
        (b"l", "symlink", b"nowhere"),
        (b"p", "fifo", None),
    ]


def test_list_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        listed(tmp_path / "a")


def test_mkdir_makes_one_and_wants_none(tmp_path: Path) -> None:
    mkdir(tmp_path / "d", mode=0o700)
    assert os.stat(tmp_path / "d").st_mode & 0o777 == 0o700
    with pytest.raises(FileExistsError):
        mkdir(tmp_path / "d")
    mkdir(tmp_path / "d", parents=True)
    mkdir(tmp_path / "d/e/f", parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        mkdir(tmp_path / "file", parents=True)


def test_move_replaces_only_when_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"b"
    move(tmp_path / "a", tmp_path / "b", overwrite=True)
    assert (tmp_path / "b").read_bytes() == b"a"
    move(tmp_path / "b", tmp_path / "c")
    assert os.listdir(tmp_path) == ["c"]


def test_move_moves_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"t")
    (tmp_path / "link").symlink_to("target")
    move(tmp_path / "link", tmp_path / "moved")
    assert os.readlink(tmp_path / "moved") == "target"


def test_move_without_the_kernels_promise_looks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.EINVAL, "no such flag here")

    monkeypatch.setattr(files_verbs, "renameat2", unknown)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        move(tmp_path / "a", tmp_path / "b")
    move(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"a"


def test_move_between_file_systems_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.fail("the test wants two file systems")
    with pytest.raises(OSError, match="cross-device") as caught:
        move(tmp_path / "a", Path("/dev/shm/coworkd-test-moved"))
    assert caught.value.errno == errno.EXDEV
