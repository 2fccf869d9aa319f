import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.model import files as words
from coworkd.workers import files_view as view
from tests.unit.workers.files_talk import Talk, talking, write


@pytest.fixture(scope="module")
def worker() -> Iterator[Talk]:
    with talking() as talk:
        yield talk


def read(path: Path | bytes) -> words.ReadSome:
    return words.ReadSome(id=0, path=os.fsencode(path), offset=0, limit=100)


@pytest.mark.parametrize(
    "path", [b"/proc/version", b"/proc/self/status", b"/proc/1/environ", b"/proc/self/mountinfo", b"/sys/kernel/mm"]
)
def test_kernel_files_are_no_files_of_a_session(path: bytes) -> None:
    with pytest.raises((view.Refused, PermissionError, FileNotFoundError)):
        os.close(view.open_path(path, os.O_RDONLY))


def test_a_symbolic_link_into_proc_is_refused_in_whatever_part(tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to("/proc")
    (tmp_path / "v").symlink_to("/proc/version")
    for path in (tmp_path / "p/version", tmp_path / "v", tmp_path / "p/self/../version"):
        with pytest.raises(view.Refused):
            view.open_file(os.fsencode(path), os.O_RDONLY)


@pytest.mark.parametrize("magic", ["root", "cwd", "fd/0", "exe"])
def test_a_magic_link_is_never_followed(magic: str, tmp_path: Path) -> None:
    (tmp_path / "m").symlink_to(f"/proc/self/{magic}")
    with pytest.raises(OSError, match="symbolic link") as caught:
        view.open_path(os.fsencode(tmp_path / "m"), os.O_PATH)
    assert caught.value.errno == errno.ELOOP


def test_a_fifo_is_refused_at_once_for_reading_and_writing(worker: Talk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert worker.refused(read(tmp_path / "fifo")).stage == "not_a_file"
    assert worker.refused(write(tmp_path / "fifo", b"x", append=True)).stage == "not_a_file"
    assert worker.refused(write(tmp_path / "fifo", b"x")).stage == "not_a_file"


def test_a_device_and_a_socket_are_refused(worker: Talk, tmp_path: Path) -> None:
    assert worker.refused(read(b"/dev/zero")).stage == "not_a_file"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert worker.refused(read(tmp_path / "s")).stage == "not_a_file"


def test_a_directory_is_no_file(worker: Talk, tmp_path: Path) -> None:
    assert worker.refused(read(tmp_path)).errno == errno.EISDIR


def test_the_target_of_a_link_is_found_also_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(tmp_path / "d/new")
    parent, name, seen = view.open_target(os.fsencode(tmp_path / "one"))
    assert (name, seen) == (b"new", None)
    assert os.fstat(parent).st_ino == (tmp_path / "d").stat().st_ino
    os.close(parent)


def test_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        view.open_target(os.fsencode(tmp_path / "a"))
    assert caught.value.errno == errno.ELOOP


def test_a_link_that_makes_the_path_too_long_is_told(tmp_path: Path) -> None:
    (tmp_path / "long").symlink_to("./" * 2040 + "y")
    with pytest.raises(OSError, match="long"):
        view.open_target(os.fsencode(tmp_path / "long"))


@pytest.mark.parametrize("path", [b"/", b"/.", b"/tmp/..", b"//"])
def test_a_path_that_names_no_entry_is_told(path: bytes) -> None:
    with pytest.raises(OSError, match="names no entry") as caught:
        view.split_path(path)
    assert caught.value.errno == errno.EINVAL


def test_the_root_and_dots_can_be_looked_at(tmp_path: Path) -> None:
    assert view.look_at(b"/").kind == "directory"
    assert view.look_at(os.fsencode(tmp_path) + b"/.").kind == "directory"


def test_a_link_is_looked_at_itself(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    seen = view.look_at(os.fsencode(tmp_path / "gone"))
    assert (seen.kind, seen.target) == ("symlink", b"nowhere")


def test_names_of_any_bytes_are_found(worker: Talk, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/new\nline \xff\xfe"
    with open(name, "wb") as file:
        file.write(b"x")
    assert worker.read(name).data == b"x"


def test_directories_are_made_as_far_as_they_lack(tmp_path: Path) -> None:
    view.make_directories(os.fsencode(tmp_path / "a/b/c"))
    view.make_directories(os.fsencode(tmp_path / "a/b/c/d"))
    assert (tmp_path / "a/b/c/d").is_dir()


def test_a_file_in_the_way_of_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        view.make_directories(os.fsencode(tmp_path / "a/b"))
