import errno
import os
import resource
import signal
from pathlib import Path

import pytest

from coworkd.workers.files_replace import Replacement
from coworkd.workers.files_view import Refused


def replacement(path: Path, **options: object) -> Replacement:
    return Replacement(os.fsencode(path), **{"mode": 0o644, "create": "auto", "home": b"/tmp", **options})  # type: ignore[arg-type]


def replace(path: Path, data: bytes, **options: object) -> bool:
    with replacement(path, **options) as fresh:
        os.write(fresh.fd, data)
        fresh.commit()
        return fresh.atomic


@pytest.fixture(params=["unnamed", "named"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without O_TMPFILE: shares and overlays have none."""
    if request.param == "named":
        really = os.open

        def without_tmpfile(path: object, flags: int, *args: object, **options: object) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "no such thing here")
            return really(path, flags, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", without_tmpfile)
    return str(request.param)


def test_a_new_file_has_its_mode(kind: str, tmp_path: Path) -> None:
    assert replace(tmp_path / "a", b"new", mode=0o750)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.stat(tmp_path / "a").st_mode & 0o7777 == 0o750
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_was_there_keeps_its_permission_bits_and_loses_its_set_id_bits(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    os.chmod(tmp_path / "a", 0o6751)
    assert replace(tmp_path / "a", b"new", mode=0o600)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.stat(tmp_path / "a").st_mode & 0o7777 == 0o751


def test_nothing_is_seen_before_commit_and_nothing_is_left_without_it(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with replacement(tmp_path / "a") as fresh:
        os.write(fresh.fd, b"half")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_written_goes_to_a_new_inode(kind: str, tmp_path: Path) -> None:
    """A reader that has the old one open keeps it whole."""
    (tmp_path / "a").write_bytes(b"old")
    with open(tmp_path / "a", "rb") as reader:
        replace(tmp_path / "a", b"new")
        assert reader.read() == b"old"


def test_a_symbolic_link_stays_and_its_target_is_replaced(kind: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("d/target")
    replace(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "d/target").read_bytes() == b"new"


def test_create_new_wants_none_and_existing_wants_one(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replacement(tmp_path / "a", create="existing")
    assert replace(tmp_path / "a", b"1", create="new")
    with pytest.raises(FileExistsError):
        replacement(tmp_path / "a", create="new")
    assert replace(tmp_path / "a", b"2", create="existing")


def test_create_new_loses_a_race_without_replacing(kind: str, tmp_path: Path) -> None:
    with replacement(tmp_path / "a", create="new") as fresh:
        (tmp_path / "a").write_bytes(b"theirs")
        with pytest.raises(FileExistsError):
            fresh.commit()
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_create_auto_replaces_what_has_come_meanwhile(kind: str, tmp_path: Path) -> None:
    with replacement(tmp_path / "a") as fresh:
        os.write(fresh.fd, b"ours")
        (tmp_path / "a").write_bytes(b"theirs")
        fresh.commit()
    assert (tmp_path / "a").read_bytes() == b"ours"
    assert os.listdir(tmp_path) == ["a"]


def test_a_directory_that_has_come_meanwhile_is_not_replaced(kind: str, tmp_path: Path) -> None:
    with replacement(tmp_path / "a") as fresh:
        (tmp_path / "a").mkdir()
        with pytest.raises(IsADirectoryError):
            fresh.commit()
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced(make: object, tmp_path: Path) -> None:
    make(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises((Refused, IsADirectoryError)):
        replacement(tmp_path / "a")


def test_where_the_directory_takes_nothing_a_file_is_written_over_in_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a folder that is a single file, whose directory is root's."""
    (tmp_path / "a").write_bytes(b"an old one that is longer")
    inode = os.stat(tmp_path / "a").st_ino
    really = Replacement._open_unnamed

    def closed(self: Replacement, directory: int, *, keep_name: bool) -> int:
        if keep_name:
            raise PermissionError(errno.EACCES, "closed")
        return really(self, directory, keep_name=keep_name)

    monkeypatch.setattr(Replacement, "_open_unnamed", closed)
    assert replace(tmp_path / "a", b"new") is False
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.stat(tmp_path / "a").st_ino == inode
    with pytest.raises(PermissionError):
        replacement(tmp_path / "missing")


def test_a_mount_point_is_written_over_in_place(monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path) -> None:
    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "a mount point")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "rename", busy)
    assert replace(tmp_path / "a", b"new") is False
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_grows_too_big_leaves_nothing(kind: str, tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with replacement(tmp_path / "a") as fresh:
            os.write(fresh.fd, bytes(1000))
            with pytest.raises(OSError, match="too large"):
                os.write(fresh.fd, b"one more")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_close_twice_is_fine_and_leaks_nothing(kind: str, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fresh = replacement(tmp_path / "a")
    fresh.close()
    fresh.close()
    with pytest.raises(FileNotFoundError):
        replacement(tmp_path / "none/a")
    assert len(os.listdir("/proc/self/fd")) == before
