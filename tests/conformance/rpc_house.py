"""A real rpc server over a unix socket, with services of a few lines: what the wire does, without a launcher.

`serve` runs it in a thread of its own, so that blocking and third-party clients can be pointed at it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import trio

from coworkd.model import calls
from coworkd.model.errors import StartFailed
from coworkd.model.ports import LinkPort
from coworkd.model.process import Exit, ExitRecord, ProcessInfo
from coworkd.rpc.handlers.link import link_methods
from coworkd.rpc.handlers.process import process_methods
from coworkd.rpc.methods import MethodTable
from coworkd.rpc.server import Server
from coworkd.wire.endpoint import UnixEndpoint


class Audit:
    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        return


class Health:
    def hello_answer(self, features: tuple[str, ...], protocol: int = 1, /) -> calls.HelloAnswer:
        return calls.HelloAnswer(
            protocol=protocol,
            version="0",
            boot_id="b",
            features=features,
            stages=(calls.Stage(name="rpc", started_at=1.0, took_s=0.5),),
            degraded={"disk": "none here"},
        )


class Processes:
    """`run` gives back its argv, joined, and how often it ran; argv `nope` is not found."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, params: calls.ProcessRun, link: LinkPort, /) -> calls.ProcessRan:
        if params.argv[0] == b"nope":
            raise StartFailed("no such command: nope", stage="not_found", errno=2)
        self.runs += 1
        out = b" ".join(params.argv) + b"\n"
        return calls.ProcessRan(
            exit=Exit(code=0, signal=None, reason="exited"),
            stdout=out,
            stderr=b"run %d" % self.runs,
            truncated=calls.TruncatedStreams(stdout=False, stderr=False),
            bytes=calls.PerStream(stdout=len(out), stderr=0),
            rusage=None,
            output="complete",
            started_at=1.0,
            ended_at=2.0,
        )

    async def wait(self, params: calls.WaitProcess, /) -> ExitRecord:
        return ExitRecord(
            process=params.process,
            session="work",
            exit=Exit(code=0, signal=None, reason="exited"),
            output="complete",
            bytes={},
            rusage=None,
            started_at=1.0,
            ended_at=2.0,
        )

    async def _never(self, *_: Any) -> Any:
        raise AssertionError("no test calls this")

    async def start(self, params: calls.ProcessStart, link: LinkPort, /) -> calls.ProcessStarted:
        started: calls.ProcessStarted = await self._never()
        return started

    async def get(self, params: calls.ProcessName, /) -> ProcessInfo:
        info: ProcessInfo = await self._never()
        return info

    async def list(self, params: calls.ProcessListParams, /) -> calls.ProcessList:
        listed: calls.ProcessList = await self._never()
        return listed

    async def attach(self, params: calls.ProcessAttach, link: LinkPort, /) -> calls.ProcessAttached:
        attached: calls.ProcessAttached = await self._never()
        return attached

    async def write_stdin(self, params: calls.WriteStdin, /) -> calls.StdinOffset:
        offset: calls.StdinOffset = await self._never()
        return offset

    async def detach(self, params: calls.ProcessName, link: LinkPort, /) -> calls.Empty:
        return calls.Empty()

    async def ack(self, params: calls.ProcessAck, link: LinkPort, /) -> calls.Empty:
        return calls.Empty()

    async def close_stdin(self, params: calls.CloseStdin, /) -> calls.Empty:
        return calls.Empty()

    async def resize(self, params: calls.Resize, /) -> calls.Empty:
        return calls.Empty()

    async def signal(self, params: calls.SignalProcess, /) -> calls.Empty:
        return calls.Empty()

    async def kill(self, params: calls.KillProcess, /) -> calls.Empty:
        return calls.Empty()

    async def forget(self, params: calls.ForgetProcess, link: LinkPort, /) -> calls.Empty:
        return calls.Empty()


@contextlib.contextmanager
def serve(directory: Path, *, token: str | None = None) -> Iterator[Path]:
    """The path of the socket of a running server; it is gone afterwards."""
    path = directory / "rpc.sock"
    ready = threading.Event()
    ended: list[BaseException] = []
    scope: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def run() -> None:
        server = Server(MethodTable((*link_methods(Health(), token=token), *process_methods(Processes()))), Audit())
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            await nursery.start(server.serve, UnixEndpoint(path=str(path)))
            scope.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            ready.set()

    def main() -> None:
        try:
            trio.run(run)
        except BaseException as error:
            ended.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    assert ready.wait(60)
    try:
        assert scope, ended
        yield path
    finally:
        for trio_token, cancel in scope:
            trio_token.run_sync_soon(cancel.cancel)
        thread.join(60)
    assert not ended
