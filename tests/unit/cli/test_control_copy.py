"""`coworkctl cp`, over a guest of a few lines; what comes from it may be hostile."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from coworkd.cli.control_copy import Remote, base_name, parse_side
from tests.unit.archive.test_reader import member, tar_of
from tests.unit.cli.conftest import SESSION, Ctl
from tests.unit.client.conftest import FakeGuest
from tests.unit.client.file_guest import FileGuest, fault


@pytest.fixture
def files(guest: FakeGuest) -> FileGuest:
    guest.answers["session.get"] = lambda _: {"session": SESSION}
    return FileGuest(guest)


@pytest.mark.parametrize(
    ("word", "side"),
    [
        ("work:a/b", Remote("work", b"a/b")),
        ("work:", Remote("work", b".")),
        ("work:a:b", Remote("work", b"a:b")),
        ("./work:a", b"./work:a"),
        ("/a/work:b", b"/a/work:b"),
        ("plain", b"plain"),
        ("-", b"-"),
        ("Work:a", b"Work:a"),
        ("work:new\nline", Remote("work", b"new\nline")),
        ("\udcff:x", b"\xff:x"),
    ],
)
def test_a_side_is_here_or_in_a_session(word: str, side: object) -> None:
    assert parse_side(word) == side


def test_the_last_name_of_a_path() -> None:
    assert [base_name(path) for path in (b"a/b/", b"b", b".", b"..", b"/", b"a/..", b"")] == [
        b"b",
        b"b",
        b"",
        b"",
        b"",
        b"",
        b"",
    ]


@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("work:a", "work:b"), ("-", "-")])
def test_exactly_one_side_is_in_a_session(
    ctl: Ctl, files: FileGuest, capsys: pytest.CaptureFixture[str], source: str, target: str
) -> None:
    assert ctl("cp", source, target) == 1
    assert "exactly one of SRC and DST" in capsys.readouterr().err


def test_a_file_goes_in_with_its_mode_and_time(ctl: Ctl, files: FileGuest, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    os.chmod(tmp_path / "a", 0o751)
    os.utime(tmp_path / "a", ns=(0, 1_234_567_890_123))
    assert ctl("cp", str(tmp_path / "a"), "work:b") == 0
    assert files.files == {"b": b"hello"}
    told = files.guest.called("file.upload")[0]
    assert (told["mode"], told["mtime_ns"], told["size"]) == (0o751, 1_234_567_890_123, 5)


@pytest.mark.parametrize("name", ["fifo", "link"])
def test_what_is_no_plain_file_is_not_replaced(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files.files["a"] = b"hello"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert ctl("cp", "work:a", str(tmp_path / name)) == 1
    assert "no plain file" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link"]
    assert (tmp_path / "fifo").is_fifo()


def test_a_link_is_replaced_and_zeros_take_no_room(ctl: Ctl, files: FileGuest, tmp_path: Path) -> None:
    files.files["a"] = bytes(1 << 20)
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "b").symlink_to("kept")
    assert ctl("cp", "work:a", str(tmp_path / "b")) == 0
    assert (tmp_path / "kept").read_bytes() == b"kept"
    assert (tmp_path / "b").read_bytes() == bytes(1 << 20)
    assert os.lstat(tmp_path / "b").st_blocks < 64


@pytest.mark.parametrize("source", ["a", "-"])
def test_a_file_does_not_become_a_directory_that_is_not_there(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    assert ctl("cp", source if source == "-" else str(tmp_path / source), "work:new/") == 1
    assert "new/ does not name a file" in capsys.readouterr().err
    assert files.files == {}


@pytest.mark.parametrize(("target", "path"), [("d/", "d/a"), ("", "./a"), ("d", "d/a")])
def test_into_a_directory_it_goes_under_its_own_name(
    ctl: Ctl, files: FileGuest, tmp_path: Path, target: str, path: str
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    files.directories |= {"d", "."}
    assert ctl("cp", str(tmp_path / "a"), f"work:{target}") == 0
    assert list(files.files) == [path]


def test_standard_input_goes_in(
    ctl: Ctl, files: FileGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (tmp_path / "in").write_bytes(b"from stdin")
    with open(tmp_path / "in") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert ctl("cp", "-", "work:a") == 0
    assert files.files == {"a": b"from stdin"}


def test_a_tree_goes_in_as_an_archive(ctl: Ctl, files: FileGuest, tmp_path: Path) -> None:
    (tmp_path / "t/d").mkdir(parents=True)
    (tmp_path / "t/d/f").write_bytes(b"x")
    (tmp_path / "t/l").symlink_to("/etc/passwd")
    assert ctl("cp", "-r", str(tmp_path / "t"), "work:copy") == 0
    with tarfile.open(fileobj=io.BytesIO(files.files["copy"])) as tar:
        assert tar.getnames() == [".", "d", "d/f", "l"]
        assert tar.getmember("l").issym()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [(["/tmp", "work:x"], "add -r"), (["work:d", "/tmp"], "add -r"), (["-r", "work:d", "-"], "standard output")],
)
def test_a_directory_needs_recursive_and_no_pipe(
    ctl: Ctl, files: FileGuest, capsys: pytest.CaptureFixture[str], words: list[str], remedy: str
) -> None:
    files.directories.add("d")
    assert ctl("cp", *words) == 1
    assert remedy in capsys.readouterr().err


def test_what_could_not_be_copied_is_told(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a").touch()
    assert ctl("cp", "-r", str(tmp_path), "work:x") == 1
    assert "fifo" in capsys.readouterr().err
    assert "x" in files.files


def test_a_fifo_is_not_waited_for(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    os.mkfifo(tmp_path / "fifo")
    assert ctl("cp", str(tmp_path / "fifo"), "work:x") == 1
    assert "neither a file nor a directory" in capsys.readouterr().err


def test_a_file_comes_out_with_its_mode_and_time(ctl: Ctl, files: FileGuest, tmp_path: Path) -> None:
    files.files["d/a"] = b"hello"
    assert ctl("cp", "work:d/a", str(tmp_path)) == 0
    assert (tmp_path / "a").read_bytes() == b"hello"
    assert (os.stat(tmp_path / "a").st_mode & 0o7777, os.stat(tmp_path / "a").st_mtime) == (0o640, 5)


@pytest.mark.parametrize("mtime_ns", [2**63 - 1, -(2**63), -1])
def test_a_time_that_cannot_be_is_taken_as_near_as_it_goes(
    ctl: Ctl, files: FileGuest, tmp_path: Path, mtime_ns: int
) -> None:
    files.files["a"] = b"x"
    files.extra["mtime_ns"] = mtime_ns
    assert ctl("cp", "work:a", str(tmp_path / "b")) == 0
    assert (tmp_path / "b").read_bytes() == b"x"


def test_a_name_of_the_guests_does_not_drive_the_terminal(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.directories.add("t")
    files.files["t"] = tar_of((member("../\x1b]0;evil\x07"), b"x"))
    assert ctl("cp", "-r", "work:t", str(tmp_path / "out")) == 1
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\\x1b]0;evil" in told


def test_set_id_bits_of_the_guest_are_not_taken(ctl: Ctl, files: FileGuest, tmp_path: Path) -> None:
    files.files["a"] = b""
    files.extra["mode"] = 0o6755
    assert ctl("cp", "work:a", str(tmp_path / "b")) == 0
    assert os.stat(tmp_path / "b").st_mode & 0o7777 == 0o755


def test_a_file_goes_to_standard_output(
    ctl: Ctl, files: FileGuest, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:  # fmt: skip
    files.files["a"] = bytes(range(256)) * 1000
    assert ctl("cp", "work:a", "-") == 0
    assert capfdbinary.readouterr().out == files.files["a"]


def test_a_link_in_a_files_place_is_replaced_and_not_written_through(
    ctl: Ctl, files: FileGuest, tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "a").symlink_to("precious")
    files.files["a"] = b"new"
    assert ctl("cp", "work:a", str(tmp_path / "a")) == 0
    assert (tmp_path / "precious").read_bytes() == b"kept"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_download_that_breaks_off_leaves_the_old_file(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    files.files["a"] = b"half"
    files.download_fault = fault("UNAVAILABLE", "it broke off")
    assert ctl("cp", "work:a", str(tmp_path / "a")) == 1
    assert "it broke off" in capsys.readouterr().err
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(("target", "top"), [("", "t"), ("new", "new")])
def test_a_tree_comes_out_below_a_directory_or_as_one(
    ctl: Ctl, files: FileGuest, tmp_path: Path, target: str, top: str
) -> None:
    files.directories.add("some/t")
    files.files["some/t"] = tar_of(
        (member(".", type=tarfile.DIRTYPE, mode=0o750), b""), (member("d/f", mode=0o600), b"x")
    )
    assert ctl("cp", "-r", "work:some/t", str(tmp_path / target)) == 0
    assert (tmp_path / top / "d/f").read_bytes() == b"x"
    assert os.stat(tmp_path / top).st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "evil",
    [
        tar_of((member("../evil"), b"x")),
        tar_of((member("/tmp/coworkd-evil"), b"x")),
        tar_of((member("l", type=tarfile.SYMTYPE, linkname=".."), b""), (member("l/evil"), b"x")),
        tar_of((member("h", type=tarfile.LNKTYPE, linkname="../precious"), b"")),
        tar_of((member("n", type=tarfile.CHRTYPE), b"")),
        b"no archive at all" * 100,
    ],
)
def test_a_hostile_archive_writes_nothing_outside(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str], evil: bytes
) -> None:
    (tmp_path / "precious").write_bytes(b"kept")
    files.directories.add("t")
    files.files["t"] = evil
    assert ctl("cp", "-r", "work:t", str(tmp_path / "out")) == 1
    assert "is not taken" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["out", "precious"]
    assert os.stat(tmp_path / "precious").st_nlink == 1


def test_a_tree_does_not_follow_a_link_in_its_own_place(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a first copy may have brought, a second must not write through."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "t").symlink_to("outside")
    files.directories.add("x/t")
    files.files["x/t"] = tar_of((member("f"), b"x"))
    assert ctl("cp", "-r", "work:x/t", str(tmp_path)) == 1
    assert os.listdir(tmp_path / "outside") == []


def test_a_tree_that_lacks_something_is_kept_and_told(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.directories.add("t")
    files.files["t"] = tar_of((member("f"), b"x"))
    files.download_fault = fault("FAILED_PRECONDITION", "this was left out: sock", stage="left_out")
    assert ctl("cp", "-r", "work:t", str(tmp_path / "out")) == 1
    assert "left out: sock" in capsys.readouterr().err
    assert (tmp_path / "out/f").read_bytes() == b"x"


def test_what_is_missing_here_is_told_with_its_path(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("cp", str(tmp_path / "none"), "work:a") == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_a_target_that_cannot_be_is_told(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.files["a"] = b""
    assert ctl("cp", "work:a", str(tmp_path / "no/where")) == 1
    assert "No such file" in capsys.readouterr().err


def test_json_tells_the_bytes(
    ctl: Ctl, files: FileGuest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    files.files["a"] = b"hello"
    assert ctl("--json", "cp", "work:a", str(tmp_path / "b")) == 0
    assert json.loads(capsys.readouterr().out) == {"bytes": 5}
