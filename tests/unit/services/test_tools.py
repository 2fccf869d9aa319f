"""`tool.*`: what is asked for is checked, what is brought is recorded first, and what is in use is never taken away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from coworkd.model import calls_tools as calls
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    DeadlineExceeded,
    DiskFailed,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    Unavailable,
)
from coworkd.model.names import OsBytes
from coworkd.model.tool import FetchTool, ToolAnswer, ToolFetched, ToolRefused
from coworkd.services.tools import Tools, find_commands

SHA = "ab" * 32


class Share:
    """Brings a file of the version asked for, or says what it is told to say."""

    def __init__(self) -> None:
        self.asked: list[FetchTool] = []
        self.answer: ToolAnswer | CoworkError | None = None
        self.hold: trio.Event | None = None
        self.executables: tuple[bytes, ...] = (b"agent",)

    async def fetch(self, request: FetchTool, *, timeout_s: float) -> ToolAnswer:
        self.asked.append(request)
        msgspec.msgpack.encode(request)  # as it travels to the worker
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.answer, CoworkError):
            raise self.answer
        if self.answer is not None:
            return self.answer
        for path in self.executables:
            file = Path(os.fsdecode(request.incoming)) / os.fsdecode(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(request.source)
        return ToolFetched(id=1, size_bytes=6, entries=1, executables=self.executables)


class Audit:
    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.seen: Callable[[], None] = lambda: None

    async def record(self, kind: str, fields: Any, /, **more: Any) -> None:
        self.seen()
        self.records.append((kind, dict(fields)))


class Storage:
    unusable: CoworkError | None = None

    def refuse_if_unusable(self) -> None:
        if self.unusable is not None:
            raise self.unusable


class Room:
    def __init__(self, path: Path, *, keep: int = 2, share_root: str = "/share") -> None:
        self.share, self.audit, self.storage = Share(), Audit(), Storage()
        (path / "mount").mkdir(exist_ok=True)
        self.tools = Tools(
            str(path / "state"),
            share_root=share_root,
            keep=keep,
            max_bytes=1000,
            fetching=self.share,
            storage=self.storage,
            audit=self.audit,
            mount_point=str(path / "mount"),
            clock=self._clock,
        )
        self._now = 0.0

    def _clock(self) -> float:
        self._now += 1
        return self._now

    async def install(self, version: str, **more: Any) -> calls.ToolInstalled:
        params: dict[str, Any] = {"name": "agent", "sha256": SHA, "source": OsBytes(b"v" + version.encode()), **more}
        return await self.tools.install(calls.ToolInstall(version=version, **params))

    def current(self) -> bytes | None:
        directory = self.tools.directory
        assert directory is not None
        path = Path(directory) / "bin" / "agent"
        return path.read_bytes() if path.exists() else None


def play(path: Path, script: Callable[[Room], Any], **more: Any) -> Room:
    room = Room(path, **more)

    async def main() -> None:
        assert await room.tools.load() is None
        await script(room)

    trio.run(main)
    return room


def test_a_version_is_brought_recorded_and_switched_to(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        room.audit.seen = lambda: seen.append(room.current())
        answer = await room.install("1.0")
        assert (answer.changed, answer.tool.current, answer.tool.commands) == (True, True, ("agent",))
        assert room.current() == b"v1.0"

    seen: list[bytes | None] = []
    room = play(tmp_path, script)
    assert seen == [None]
    assert room.audit.records == [("tool.install", {"name": "agent", "version": "1.0", "sha256": SHA})]
    request = room.share.asked[0]
    assert (request.root, request.source, request.sha256, request.limit_bytes) == (b"/share", b"v1.0", SHA, 1000)


def test_the_log_line_is_the_one_people_know(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def script(room: Room) -> None:
        with caplog.at_level("INFO", logger="coworkd.tools"):
            await room.install("1.0")

    play(tmp_path, script)
    assert caplog.messages == ["SDK installed: version=1.0"]


def test_what_is_there_is_switched_to_without_its_source(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        await room.install("1")
        await room.install("2")
        back = await room.install("1", source=None)
        assert (back.changed, room.current()) == (True, b"v1")
        again = await room.install("1", source=None)
        assert again.changed is False

    room = play(tmp_path, script)
    assert len(room.share.asked) == 2
    assert [fields["version"] for _, fields in room.audit.records] == ["1", "2", "1"]


def test_a_version_does_not_change(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        await room.install("1")
        with pytest.raises(AlreadyExists):
            await room.install("1", sha256="cd" * 32)

    play(tmp_path, script)


def test_without_switching_it_is_only_there(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        await room.install("1")
        await room.install("2", switch=False)
        assert room.current() == b"v1"

    play(tmp_path, script)


def test_the_newest_stay_and_always_the_one_in_use(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        await room.install("1")
        await room.install("2", switch=False)
        third = await room.install("3", switch=False)
        assert third.pruned == ("2",)
        assert [info.version for info in (await room.tools.list()).tools] == ["3", "1"]

    assert play(tmp_path, script).audit.records[-1] == ("tool.remove", {"name": "agent", "version": "2"})


def test_what_is_in_use_is_removed_only_with_all(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        await room.install("1")
        await room.install("2")
        with pytest.raises(InvalidState):
            await room.tools.remove(calls.ToolRemove(name="agent", version="2"))
        assert (await room.tools.remove(calls.ToolRemove(name="agent"))).removed == ("2", "1")
        assert room.current() is None
        with pytest.raises(NotFound):
            await room.tools.remove(calls.ToolRemove(name="agent"))

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("why", "number", "error"),
    [
        ("not_found", 2, NotFound),
        ("unreadable", 40, Unavailable),
        ("mismatch", None, InvalidParams),
        ("not_a_file", None, InvalidParams),
        ("bad_archive", None, InvalidParams),
        ("too_big", None, LimitExceeded),
        ("disk", 28, LimitExceeded),
        ("disk", 5, DiskFailed),
    ],
)
def test_what_cannot_be_brought_leaves_nothing(
    tmp_path: Path, why: Any, number: int | None, error: type[CoworkError]
) -> None:
    async def script(room: Room) -> None:
        room.share.answer = ToolRefused(id=1, why=why, message="said so", errno=number)
        with pytest.raises(error, match="said so"):
            await room.install("1")
        assert (await room.tools.list()).tools == ()

    room = play(tmp_path, script)
    assert room.audit.records == []
    assert os.listdir(tmp_path / "state" / "tools" / "incoming") == []


def test_a_share_that_hangs_leaves_nothing(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        room.share.answer = DeadlineExceeded("late")
        with pytest.raises(DeadlineExceeded):
            await room.install("1")

    play(tmp_path, script)
    assert os.listdir(tmp_path / "state" / "tools" / "incoming") == []


def test_a_record_that_cannot_be_written_installs_nothing(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        def fail() -> None:
            raise DiskFailed("the log is full")

        room.audit.seen = fail
        with pytest.raises(DiskFailed):
            await room.install("1")
        assert (await room.tools.list()).tools == ()

    play(tmp_path, script)
    assert os.listdir(tmp_path / "state" / "tools" / "incoming") == []


def test_a_second_install_is_refused_while_one_goes_on(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        room.share.hold = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.install, "1")
            while not room.share.asked:
                await trio.sleep(0)
            with pytest.raises(LimitExceeded, match="another tool"):
                await room.install("2")
            room.share.hold.set()

    play(tmp_path, script)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"},
        {"name": "bin"},
        {"name": "A"},
        {"version": "current"},
        {"version": "a/b"},
        {"version": ".."},
        {"sha256": "ab"},
        {"source": None},
        {"commands": {}},
        {"commands": {"a/b": "agent"}},
        {"commands": {"agent": "../../x"}},
        {"commands": {"agent": "none"}},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async def script(room: Room) -> None:
        with pytest.raises(InvalidParams):
            await room.install(**{"version": "1", **wrong})
        assert (await room.tools.list()).tools == ()

    play(tmp_path, script)


def test_two_tools_cannot_have_one_command(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        await room.install("1")
        with pytest.raises(AlreadyExists, match="command of agent"):
            await room.install("1", name="other", commands={"agent": "agent"})

    play(tmp_path, script)


def test_a_machine_without_the_place_for_tools_says_so(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        (tmp_path / "mount").rmdir()
        assert room.tools.directory is None
        with pytest.raises(InvalidState, match="make that directory"):
            await room.install("1")

    play(tmp_path, script)


def test_a_disk_that_cannot_be_used_takes_no_tools(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        room.storage.unusable = Unavailable("the disk is gone")
        with pytest.raises(Unavailable):
            await room.install("1")

    play(tmp_path, script)


def test_tools_that_cannot_be_read_are_told_and_nothing_else_breaks(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tools").write_text("a file")
    room = Room(tmp_path)
    assert "cannot be read" in (trio.run(room.tools.load) or "")
    assert room.tools.directory is None


def test_without_a_share_a_source_is_a_path_of_the_machine(tmp_path: Path) -> None:
    async def script(room: Room) -> None:
        with pytest.raises(InvalidParams, match="absolute"):
            await room.install("1")
        await room.install("1", source=OsBytes(b"/srv/agent"))
        assert (room.share.asked[0].root, room.share.asked[0].source) == (b"/", b"srv/agent")

    play(tmp_path, script, share_root="")


def fetched(*paths: bytes) -> ToolFetched:
    return ToolFetched(id=1, size_bytes=1, entries=1, executables=paths)


def test_the_command_is_the_one_named_as_the_tool_nearest_to_the_top() -> None:
    assert find_commands("agent", None, fetched(b"v1/bin/agent", b"v1/lib/x/agent", b"v1/bin/other")) == {
        "agent": "v1/bin/agent"
    }


@pytest.mark.parametrize("paths", [(b"other",), (b"a/agent", b"b/agent"), ()])
def test_a_command_that_is_not_to_be_found_is_asked_for(paths: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidParams, match="name its commands"):
        find_commands("agent", None, fetched(*paths))
