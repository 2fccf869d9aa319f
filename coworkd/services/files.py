"""`file.*`: a session's files, worked on by a worker that has the session's rights and sees what it sees (`workers.files`).

Order of what changes something: judge → the session is open → audit → the worker does it. coworkd itself touches no file of a session.

Rules
- A path is absolute, as the session sees it, or relative to its home. Past that the worker looks it up; nothing is decided on names here.
- Uploads and downloads are streams of the link that asked (`stream.*`), and end with it. Both ends are recorded.
- A session that closes takes its transfers along.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

import trio

from coworkd.model import calls
from coworkd.model import files as words
from coworkd.model.errors import CoworkError, InvalidParams, Unavailable
from coworkd.model.names import OsBytes
from coworkd.model.ports import (
    AuditPort,
    FolderLauncherPort,
    LinkPort,
    SessionDirectory,
    StreamFlow,
    StreamPlace,
    StreamsPort,
)
from coworkd.model.session import SessionView
from coworkd.model.stream import StreamEnding
from coworkd.services.files_end import FileEnd, watch_for_stall
from coworkd.services.files_workers import FileWorkers, Worker, expect

STALL_S = 30.0
"""How long a worker may do nothing for a transfer while it is its turn: what it reads or writes hangs then."""
FINISH_S = 300.0
"""How long the end of an upload may take: fsync(2) of gigabytes, on a disk of any kind."""
WRITE_S = 30.0
"""A write ends with fsync(2), which waits for a disk."""
_STALL_LOOK_S = 5.0
_OFFSET_LIMIT = 2**63 - 1


class _Sockets:
    """Both ends of the two sockets of a transfer (`model.files`)."""

    def __init__(self) -> None:
        self.stream, self.their_stream = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control, self.their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def theirs(self) -> tuple[int, int]:
        return self.their_stream.fileno(), self.their_control.fileno()

    def close_theirs(self) -> None:
        self.their_stream.close()
        self.their_control.close()

    def close_ours(self) -> None:
        self.stream.close()
        self.control.close()


class Files:
    """All files of all sessions. `serve` owns the tasks."""

    def __init__(
        self, *, sessions: SessionDirectory, launcher: FolderLauncherPort, audit: AuditPort, streams: StreamsPort
    ) -> None:  # fmt: skip
        self._sessions = sessions
        self._audit = audit
        self._streams = streams
        self._workers = FileWorkers(launcher)
        self._flows: dict[str, dict[str, StreamFlow]] = {}
        """Session → its transfers under way."""
        self._nursery: trio.Nursery | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the workers. Never returns."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._workers.serve)
            task_status.started()

    def end_session(self, session: str) -> None:
        """The session closes, or has closed: its worker ends, and what it was doing is told as lost."""
        for flow in list(self._flows.get(session, {}).values()):
            flow.lose(Unavailable(f"session {session} was closed", session=session))
        self._workers.end_session(session)

    # -- looking ------------------------------------------------------------------------------------------------

    async def read(self, params: calls.FileRead) -> calls.FileData:
        """Raises `InvalidParams`, and what the worker says, as every verb does."""
        _check_number("offset", params.offset, _OFFSET_LIMIT)
        _check_number("limit", params.limit, words.READ_LIMIT_BYTES)
        view, path = await self._open(params.session, params.path)
        request = words.ReadSome(id=0, path=path, offset=params.offset, limit=params.limit)
        answer = expect(await self._workers.ask(view.name, request), words.SomeRead)
        return calls.FileData(data=answer.data, size=answer.size, eof=answer.eof)

    async def stat(self, params: calls.FilePath) -> calls.FileStated:
        """Of the path itself, not of what a symbolic link leads to."""
        view, path = await self._open(params.session, params.path)
        answer = expect(await self._workers.ask(view.name, words.LookAt(id=0, path=path)), words.LookedAt)
        return calls.FileStated(stat=_stat(answer.stat, params.path))

    async def list(self, params: calls.FileListParams) -> calls.FileListed:
        """One page."""
        if not 1 <= params.limit <= words.LIST_LIMIT:
            raise InvalidParams(f"a page has 1 to {words.LIST_LIMIT} entries, not {params.limit}", key="limit")
        view, path = await self._open(params.session, params.path)
        request = words.ListSome(id=0, path=path, after=bytes(params.after), limit=params.limit)
        answer = expect(await self._workers.ask(view.name, request), words.SomeListed)
        return calls.FileListed(
            entries=tuple(_stat(each, OsBytes(each.name)) for each in answer.entries), more=answer.more
        )

    # -- changing -----------------------------------------------------------------------------------------------

    async def write(self, params: calls.FileWrite, link: LinkPort) -> calls.FileWritten:
        """The whole file, or more at its end. Raises `DiskFailed` where it cannot be recorded, and then nothing is done."""
        _check_mode(params.mode)
        view, path = await self._open(params.session, params.path)
        about = {"size": len(params.data), "append": params.append}
        await self._record("file.write", view, link, path, about)
        request = words.WriteWhole(
            id=0,
            path=path,
            data=params.data,
            mode=params.mode,
            append=params.append,
            create=params.create,
            parents=params.parents,
            home=view.home,
        )
        answer = expect(await self._workers.ask(view.name, request, deadline_s=WRITE_S), words.WholeWritten)
        return calls.FileWritten(size=answer.size, atomic=answer.atomic)

    async def mkdir(self, params: calls.FileMkdir, link: LinkPort) -> calls.Empty:
        """With `parents` also those above it, and one that is there is fine."""
        _check_mode(params.mode)
        view, path = await self._open(params.session, params.path)
        await self._record("file.mkdir", view, link, path, {})
        request = words.MakeDirectory(id=0, path=path, mode=params.mode, parents=params.parents)
        expect(await self._workers.ask(view.name, request), words.FileDone)
        return calls.Empty()

    async def move(self, params: calls.FileMove, link: LinkPort) -> calls.Empty:
        """A rename; between file systems it is refused."""
        view, path = await self._open(params.session, params.path)
        to = parse_path(params.to, view.home, key="to")
        await self._record("file.move", view, link, path, {"to": to, "overwrite": params.overwrite})
        request = words.MoveEntry(id=0, path=path, to=to, overwrite=params.overwrite)
        expect(await self._workers.ask(view.name, request), words.FileDone)
        return calls.Empty()

    async def remove(self, params: calls.FileRemove, link: LinkPort) -> calls.FileRemoved:
        """An entry, and with `recursive` all below it. The first that may not go ends it, and is named in the error."""
        view, path = await self._open(params.session, params.path)
        await self._record("file.remove", view, link, path, {"recursive": params.recursive})
        entries = 0
        request = words.RemoveSome(id=0, path=path, recursive=params.recursive)
        while True:
            try:
                answer = expect(await self._workers.ask(view.name, request), words.SomeRemoved)
            except CoworkError as error:
                if entries:
                    error.details["entries"] = entries + int(error.details.get("entries", 0))
                raise
            entries += answer.entries
            if not answer.more:
                return calls.FileRemoved(entries=entries)
            request = words.RemoveSome(id=0, path=path, recursive=params.recursive, again=True)

    # -- streams ------------------------------------------------------------------------------------------------

    async def upload(self, params: calls.FileUpload, link: LinkPort) -> calls.FileUploadOpened:
        """A stream that becomes a file or a tree. Raises `LimitExceeded` where the disk is too small for `size`, too."""
        _check_mode(params.mode)
        if params.size is not None:
            _check_number("size", params.size, _OFFSET_LIMIT)
        if params.mtime_ns is not None:
            _check_number("mtime_ns", params.mtime_ns, _OFFSET_LIMIT)
        with self._streams.reserve(link) as place:
            view, path = await self._open(params.session, params.path)
            request = words.Upload(
                id=0,
                path=path,
                tar=params.tar,
                mode=params.mode,
                mtime_ns=params.mtime_ns,
                size=params.size,
                home=view.home,
            )
            about = {"tar": params.tar, "size": params.size, "stream": place.name}
            await self._transfer("file.upload", request, view, link, place, about)
            return calls.FileUploadOpened(stream=place.name)

    async def download(self, params: calls.FileDownload, link: LinkPort) -> calls.FileDownloadOpened:
        """A stream of a file's bytes, or of an archive of what is there."""
        with self._streams.reserve(link, window=params.window) as place:
            view, path = await self._open(params.session, params.path)
            request = words.Download(id=0, path=path, tar=params.tar)
            about = {"tar": params.tar, "stream": place.name}
            answer = await self._transfer("file.download", request, view, link, place, about, params.window)
            begun = expect(answer, words.DownloadBegun)
            return calls.FileDownloadOpened(
                stream=place.name, size=begun.size, mode=begun.mode, mtime_ns=begun.mtime_ns
            )

    async def _transfer(
        self,
        kind: str,
        request: words.Upload | words.Download,
        view: SessionView,
        link: LinkPort,
        place: StreamPlace,
        about: Mapping[str, Any],
        window: int | None = None,
    ) -> words.FromWorker:
        """Record it, have the worker begin, and open the stream: nothing is awaited between that and the answer."""
        ending = {"session": view.name, "link": link.name, "path": request.path, "stream": place.name}
        await self._record(kind, view, link, request.path, about)
        sockets = _Sockets()
        try:
            async with self._workers.using(view.name) as worker:
                answer = await self._workers.ask_of(worker, request, sockets.theirs)
                self._workers.hold(worker)
        except BaseException as error:
            sockets.close_ours()
            with trio.CancelScope(shield=True):
                await self._audit.record(f"{kind}_end", {**ending, "reason": _reason(error)})
            raise
        finally:
            sockets.close_theirs()
        end = FileEnd(sockets.stream, sockets.control, view.name, upload=isinstance(request, words.Upload))
        try:
            flow = place.open(end, window=window, ended=partial(self._record_end, f"{kind}_end", worker, end, ending))
        except BaseException:
            self._workers.release(worker)
            raise
        self._flows.setdefault(view.name, {})[place.name] = flow
        self._watch(end, flow, worker, request.path)
        return answer

    def _watch(self, end: FileEnd, flow: StreamFlow, worker: Worker, path: bytes) -> None:
        def stalled() -> None:
            where = path.decode("utf-8", "replace")
            why = f"nothing moved at {where} for {FINISH_S if end.finishing else STALL_S:g} s"
            self._workers.end(worker, why)
            flow.lose(Unavailable(f"{why}: the folder it lies in may hang", path=where))

        if self._nursery is not None:
            watch = partial(watch_for_stall, stall_s=STALL_S, finish_s=FINISH_S, every_s=_STALL_LOOK_S)
            self._nursery.start_soon(watch, end, stalled)

    async def _record_end(
        self, kind: str, worker: Worker, end: FileEnd, about: Mapping[str, Any], ending: StreamEnding
    ) -> None:
        self._workers.release(worker)
        session, stream = about["session"], about["stream"]
        flows = self._flows.get(session, {})
        flows.pop(stream, None)
        if not flows:
            self._flows.pop(session, None)
        moved = end.outcome if isinstance(end.outcome, words.Moved) else None
        whole = moved is not None and not moved.omitted
        await self._audit.record(
            kind,
            {
                **about,
                "reason": "done" if whole else _reason(ending.error) if ending.error else "broken off",
                "entries": moved.entries if moved else None,
                "sent_bytes": ending.sent_bytes,
                "received_bytes": ending.received_bytes,
                "took_s": ending.took_s,
            },
        )

    # -- inside -------------------------------------------------------------------------------------------------

    async def _open(self, session: str, path: bytes) -> tuple[SessionView, bytes]:
        """The session, open, and the path as the worker takes it. Raises `NotFound`, `InvalidState`, `InvalidParams`."""
        if not path:
            raise InvalidParams("the path is empty", key="path")
        view = await self._sessions.open(session)
        return view, parse_path(path, view.home)

    async def _record(
        self, kind: str, view: SessionView, link: LinkPort, path: bytes, about: Mapping[str, Any]
    ) -> None:  # fmt: skip
        await self._audit.record(kind, {"session": view.name, "link": link.name, "path": path, **about})


def parse_path(path: bytes, home: bytes, *, key: str = "path") -> bytes:
    """Absolute, as the session sees it. Raises `InvalidParams`."""
    if not path or b"\0" in path:
        raise InvalidParams("a path is not empty and has no NUL byte", key=key)
    absolute = bytes(path) if path.startswith(b"/") else home + b"/" + path
    if len(absolute) > words.PATH_LIMIT_BYTES:
        raise InvalidParams(f"a path has at most {words.PATH_LIMIT_BYTES} bytes, this one {len(absolute)}", key=key)
    return absolute


def _check_number(key: str, number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise InvalidParams(f"{key} is 0 to {most}, not {number}", key=key)


def _check_mode(mode: int) -> None:
    if not 0 <= mode <= 0o777:
        raise InvalidParams(f"a mode is 0 to 0o777 (no set-user-id bits), not {mode:#o}", key="mode")


def _stat(seen: words.EntryStat, path: OsBytes) -> calls.FileStat:
    return calls.FileStat(
        path=path,
        kind=seen.kind,
        size=seen.size,
        mode=seen.mode,
        uid=seen.uid,
        gid=seen.gid,
        modified_at=seen.modified_at,
        links=seen.links,
        target=None if seen.target is None else OsBytes(seen.target),
    )


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, CoworkError) else type(error).__name__
