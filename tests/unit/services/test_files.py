import errno
import io
import os
import tarfile
from pathlib import Path

import pytest
import trio

from coworkd.model import calls
from coworkd.model import files as words
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    DiskFailed,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    Unavailable,
)
from coworkd.model.names import OsBytes
from coworkd.services import files as service
from coworkd.services.files import STALL_S, parse_path
from tests.unit.services.files_house import files_house
from tests.unit.services.process_house import in_trio, jump, open_fds, settle


def test_a_path_is_absolute_or_below_the_home() -> None:
    assert parse_path(b"/etc/passwd", b"/sessions/work") == b"/etc/passwd"
    assert parse_path(b"a/../b", b"/sessions/work") == b"/sessions/work/a/../b"
    assert parse_path(OsBytes(b"\xff"), b"/h") == b"/h/\xff"
    for path in (b"", b"a\0b", b"x" * words.PATH_LIMIT_BYTES):
        with pytest.raises(InvalidParams):
            parse_path(path, b"/h")


@in_trio
async def test_every_verb_does_what_it_says_and_what_changes_something_is_recorded(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        files, link = house.files, house.link
        assert await house.write(b"d/a", b"hello", parents=True) == calls.FileWritten(size=5, atomic=True)
        assert await house.read(b"d/a", offset=1, limit=3) == calls.FileData(data=b"ell", size=5, eof=False)
        stated = await files.stat(calls.FilePath(session="work", path=OsBytes(b"d/a")))
        assert (stated.stat.path, stated.stat.kind, stated.stat.size) == (b"d/a", "file", 5)
        await files.mkdir(calls.FileMkdir(session="work", path=OsBytes(b"e")), link)
        await files.move(calls.FileMove(session="work", path=OsBytes(b"d/a"), to=OsBytes(b"e/b")), link)
        listed = await files.list(calls.FileListParams(session="work", path=OsBytes(b"e")))
        assert ([entry.path for entry in listed.entries], listed.more) == ([b"b"], False)
        removed = await files.remove(calls.FileRemove(session="work", path=OsBytes(b"e"), recursive=True), link)
        assert removed.entries == 2
        assert os.listdir(house.home) == ["d"]
        assert house.audit.kinds == ["file.write", "file.mkdir", "file.move", "file.remove"]
        told = house.audit.fields("file.move")
        assert (told["path"], told["to"], told["overwrite"]) == (
            bytes(house.home / "d/a"),
            bytes(house.home / "e/b"),
            False,
        )
        assert (told["session"], told["link"]) == ("work", "link")


@in_trio
async def test_what_cannot_be_recorded_is_not_done(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        house.audit.full = {"file.write", "file.remove", "file.upload"}
        for _ in range(2):
            with pytest.raises(DiskFailed):
                await house.write(b"a", b"x")
            with pytest.raises(DiskFailed):
                await house.upload(b"a")
        with pytest.raises(DiskFailed):
            await house.files.remove(calls.FileRemove(session="work", path=OsBytes(b".")), house.link)
        assert os.listdir(house.home) == []
        assert house.launcher.started == []


@in_trio
async def test_what_cannot_be_meant_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        for fields in ({"offset": -1}, {"limit": -1}, {"limit": words.READ_LIMIT_BYTES + 1}, {"offset": 1 << 63}):
            with pytest.raises(InvalidParams):
                await house.read(b"a", **fields)
        for mode in (-1, 0o1000, 0o4755):
            with pytest.raises(InvalidParams):
                await house.write(b"a", b"", mode=mode)
            with pytest.raises(InvalidParams):
                await house.upload(b"a", mode=mode)
        for limit in (0, words.LIST_LIMIT + 1):
            with pytest.raises(InvalidParams):
                await house.files.list(calls.FileListParams(session="work", path=OsBytes(b"."), limit=limit))
        with pytest.raises(InvalidParams):
            await house.upload(b"a", size=-1)
        with pytest.raises(InvalidParams):
            await house.download(b"a", window=0)
        with pytest.raises(InvalidParams):
            await house.read(b"")
        assert house.audit.records == []
        assert house.launcher.started == []


@in_trio
async def test_errors_have_their_code_path_and_number(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        with pytest.raises(NotFound) as missing:
            await house.read(b"none")
        assert (missing.value.details["errno"], missing.value.details["path"]) == (
            errno.ENOENT,
            str(house.home / "none"),
        )
        await house.write(b"a", b"")
        with pytest.raises(AlreadyExists):
            await house.write(b"a", b"", create="new")
        with pytest.raises(InvalidState):
            await house.write(b"a/b", b"")
        with pytest.raises(NotFound, match="nobody"):
            await house.read(b"a", session="nobody")


@in_trio
async def test_an_upload_becomes_a_file_when_it_is_closed_for_writing(tmp_path: Path) -> None:
    before = open_fds()
    data = os.urandom(300_000)
    async with files_house(tmp_path) as house:
        stream = await house.upload(b"a", mode=0o600, size=len(data), mtime_ns=5 * 10**9)
        sent = 0
        while sent < len(data):
            sent = await house.send(stream, data[sent : sent + 65536], sent)
        assert os.listdir(house.home) == []
        await house.close_write(stream)
        assert (await house.told(stream))[1].error is None
        assert (house.home / "a").read_bytes() == data
        assert (os.stat(house.home / "a").st_mode & 0o777, os.stat(house.home / "a").st_mtime) == (0o600, 5)
        await settle()
        assert house.audit.kinds == ["file.upload", "file.upload_end"]
        told = house.audit.fields("file.upload_end")
        assert (told["reason"], told["entries"], told["sent_bytes"]) == ("done", 1, len(data))
        await house.close(stream)
    assert open_fds() == before


@pytest.mark.parametrize("how", ["stream", "link", "session"])
@in_trio
async def test_an_upload_that_is_not_closed_for_writing_leaves_nothing(tmp_path: Path, how: str) -> None:
    before = open_fds()
    async with files_house(tmp_path) as house:
        await house.write(b"a", b"old")
        stream = await house.upload(b"a")
        await house.send(stream, b"new")
        if how == "stream":
            await house.close(stream)
        elif how == "link":
            house.link.close()
        else:
            house.files.end_session("work")
        await settle()
        told = house.audit.fields("file.upload_end")
        assert told["reason"] != "done"
        assert told["entries"] is None
    assert (tmp_path / "work/a").read_bytes() == b"old"
    assert os.listdir(tmp_path / "work") == ["a"]
    assert open_fds() == before


@in_trio
async def test_an_upload_that_fails_on_its_way_says_why(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        stream = await house.upload(b"d", tar=True)
        await house.send(stream, b"this is no archive" * 100)
        data, end = await house.told(stream)
        assert data == b""
        assert end.error is not None
        assert "checksum" in end.error
        with pytest.raises(InvalidState):
            await house.send(stream, b"more", 1800)


@in_trio
async def test_an_upload_that_cannot_begin_gives_its_place_back_and_is_recorded(tmp_path: Path) -> None:
    before = open_fds()
    async with files_house(tmp_path) as house:
        for _ in range(300):
            with pytest.raises(NotFound):
                await house.upload(b"none/a")
        with pytest.raises(LimitExceeded, match="free"):
            await house.upload(b"a", size=1 << 60)
        assert house.audit.kinds == ["file.upload", "file.upload_end"] * 301
    assert open_fds() == before


@in_trio
async def test_a_download_tells_the_file_and_its_bytes(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        data = os.urandom(500_000)
        await house.write(b"a", data, mode=0o640)
        opened = await house.download(b"a")
        assert (opened.size, opened.mode) == (len(data), 0o640)
        assert opened.mtime_ns == os.stat(house.home / "a").st_mtime_ns
        got, end = await house.told(opened.stream)
        assert got == data
        assert end.error is None
        with pytest.raises(InvalidState):
            await house.send(opened.stream, b"x")


@in_trio
async def test_a_window_bounds_a_download(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        await house.write(b"a", b"0123456789")
        opened = await house.download(b"a", window=4)
        await settle()
        assert [frame.data for frame in house.link.take()] == [b"0123"]
        await house.rig.streams.ack(calls.StreamAck(stream=opened.stream, offset=4), house.link)
        await settle()
        assert b"".join(frame.data for frame in house.link.take()) == b"4567"


@in_trio
async def test_a_download_that_lacks_entries_is_whole_and_says_so(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        await house.write(b"d/a", b"1", parents=True)
        os.mkfifo(house.home / "d/fifo")
        opened = await house.download(b"d", tar=True)
        assert (opened.size, opened.mode) == (None, None)
        data, end = await house.told(opened.stream)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert tar.getnames() == [".", "a"]
        assert end.error is not None
        assert "fifo" in end.error
        await settle()
        assert "left out" in house.audit.fields("file.download_end")["reason"]


@in_trio
async def test_a_worker_that_does_nothing_for_a_transfer_is_ended_and_the_host_told(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        stalled = []
        house.files._workers.end = lambda worker, why: stalled.append(why)  # type: ignore[method-assign]
        await house.write(b"big", bytes(64 * 1024))
        opened = await house.download(b"big")
        end = house.rig.streams._find(opened.stream, house.link)[1]._end
        end.waits_for_worker = lambda: (0, 0)  # type: ignore[attr-defined]
        for _ in range(int(STALL_S / service._STALL_LOOK_S) + 2):
            jump(service._STALL_LOOK_S)
            await settle()
        assert len(stalled) == 1
        _, told = await house.told(opened.stream)
        assert told.error is not None
        assert "nothing moved" in told.error


@in_trio
async def test_a_host_that_does_not_read_is_no_stall(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        with open(tmp_path / "sparse", "wb") as file:
            file.truncate(1 << 30)
        opened = await house.download(bytes(tmp_path / "sparse"))
        for _ in range(20):
            jump(service._STALL_LOOK_S)
            await settle()
        assert house.launcher.killed == []
        await house.close(opened.stream)


@in_trio
async def test_a_removal_goes_on_until_all_is_gone_and_counts_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coworkd.workers.files_remove.SLICE_S", -1.0)
    async with files_house(tmp_path) as house:
        for name in (b"d/a", b"d/b", b"d/c/e"):
            await house.write(name, b"", parents=True)
        params = calls.FileRemove(session="work", path=OsBytes(b"d"), recursive=True)
        assert (await house.files.remove(params, house.link)).entries == 5


@in_trio
async def test_what_a_removal_had_done_before_it_failed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coworkd.workers.files_remove.SLICE_S", -1.0)
    really = os.rmdir

    def guarded(path: object, **options: object) -> None:
        if path == b"keep":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        really(path, **options)  # type: ignore[arg-type]

    async with files_house(tmp_path) as house:
        for name in (b"d/keep/a", b"d/keep/b"):
            await house.write(name, b"", parents=True)
        monkeypatch.setattr("coworkd.workers.files_remove.os.rmdir", guarded)
        with pytest.raises(CoworkError) as caught:
            await house.files.remove(
                calls.FileRemove(session="work", path=OsBytes(b"d"), recursive=True), house.link
            )  # fmt: skip
        monkeypatch.undo()
        assert caught.value.details["entries"] == 2
        assert caught.value.details["path"].endswith("/d/keep")


@in_trio
async def test_before_it_is_served_nothing_is_started(tmp_path: Path) -> None:
    async with files_house(tmp_path) as house:
        house.files._workers._nursery = None
        with pytest.raises(Unavailable, match="starting or stopping"):
            await house.read(b"a")
        await trio.lowlevel.checkpoint()
