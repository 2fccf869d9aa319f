"""A guest that has files: what it is sent becomes one, what is asked for is sent."""

from __future__ import annotations

from typing import Any

from tests.unit.client.conftest import FakeGuest, Fault
from tests.unit.client.stream_guest import StreamGuest

CHUNK_BYTES = 50_000


class FileGuest(StreamGuest):
    """Answers `file.upload`, `file.download` and `file.stat`. `files` are its files, archives for those asked for with `tar`."""

    def __init__(self, guest: FakeGuest) -> None:
        super().__init__(guest)
        self.files: dict[str, bytes] = {}
        self.directories: set[str] = set()
        self.begun: dict[str, dict[str, Any]] = {}
        self.upload_fault: dict[str, Any] | None = None
        """What is told at the end of an upload, instead of taking it."""
        self.download_fault: dict[str, Any] | None = None
        self.extra: dict[str, Any] = {"mode": 0o640, "mtime_ns": 5 * 10**9}
        guest.answers["file.upload"] = self._upload
        guest.answers["file.download"] = self._download
        guest.answers["file.stat"] = self._stat
        guest.after["file.download"] = self._send_file
        guest.after["stream.close_write"] = self._end_upload

    def refuse_writes(self, **end: Any) -> None:
        """From now on a write is answered as by a guest that takes no more; `end` is what the stream's last frame says."""

        def write(params: dict[str, Any]) -> dict[str, int]:
            self.send(0, b"", params["stream"], eof=True, **end)
            raise Fault("FAILED_PRECONDITION", "closed")

        self.guest.answers["stream.write"] = write

    def _upload(self, params: dict[str, Any]) -> dict[str, str]:
        if _path(params) == "full":
            raise Fault("RESOURCE_EXHAUSTED", "no room")
        name = f"s{next(self._numbers)}"
        self.got[name] = bytearray()
        self.begun[name] = params
        return {"stream": name}

    def _end_upload(self, params: dict[str, Any]) -> None:
        name = params["stream"]
        if self.upload_fault is not None:
            self.send(0, b"", name, eof=True, error=self.upload_fault)
        else:
            self.files[_path(self.begun[name])] = bytes(self.got[name])
            self.send(0, b"", name, eof=True)

    def _download(self, params: dict[str, Any]) -> dict[str, Any]:
        if _path(params) not in self.files:
            raise Fault("NOT_FOUND", "there is none")
        if params["tar"]:
            return {"stream": "d1", "size": None}
        return {"stream": "d1", "size": len(self.files[_path(params)]), **self.extra}

    def _send_file(self, params: dict[str, Any]) -> None:
        data = self.files.get(_path(params))
        if data is None:
            return
        for position in range(0, len(data), CHUNK_BYTES):
            self.send(position, data[position : position + CHUNK_BYTES], "d1")
        fault = {} if self.download_fault is None else {"error": self.download_fault}
        self.send(len(data), b"", "d1", eof=True, **fault)

    def _stat(self, params: dict[str, Any]) -> dict[str, Any]:
        path = _path(params).removesuffix("/.")
        if path not in self.directories:
            raise Fault("FAILED_PRECONDITION" if path in self.files else "NOT_FOUND", "no directory")
        seen = {"kind": "directory", "size": 0, "mode": 0o755, "uid": 1001, "gid": 1001, "modified_at": 1.0}
        return {"stat": {"path": params["path"], **seen}}


def _path(params: dict[str, Any]) -> str:
    path = params["path"]
    return path.decode() if isinstance(path, bytes) else path


def fault(code: str, message: str, **details: Any) -> dict[str, Any]:
    """An error as it travels."""
    return {"code": code, "message": message, "details": details}
