"""`process.*`."""

from __future__ import annotations

from coworkd.model import calls
from coworkd.model.ports import LinkPort
from coworkd.model.process import ExitRecord, ProcessInfo
from coworkd.rpc.handlers.ports import ProcessesApi
from coworkd.rpc.methods import Method


def process_methods(processes: ProcessesApi) -> tuple[Method, ...]:
    """The methods of processes."""

    async def signal(params: calls.SignalProcess, link: LinkPort) -> calls.Empty:
        return await processes.signal(params)

    async def kill(params: calls.KillProcess, link: LinkPort) -> calls.Empty:
        return await processes.kill(params)

    async def wait(params: calls.WaitProcess, link: LinkPort) -> ExitRecord:
        return await processes.wait(params)

    async def get(params: calls.ProcessName, link: LinkPort) -> ProcessInfo:
        return await processes.get(params)

    async def list_(params: calls.ProcessListParams, link: LinkPort) -> calls.ProcessList:
        return await processes.list(params)

    return (
        Method(name="process.run", params=calls.ProcessRun, handler=processes.run),
        Method(name="process.start", params=calls.ProcessStart, handler=processes.start),
        Method(name="process.signal", params=calls.SignalProcess, handler=signal),
        Method(name="process.kill", params=calls.KillProcess, handler=kill),
        Method(name="process.wait", params=calls.WaitProcess, handler=wait),
        Method(name="process.get", params=calls.ProcessName, handler=get),
        Method(name="process.list", params=calls.ProcessListParams, handler=list_),
        Method(name="process.forget", params=calls.ForgetProcess, handler=processes.forget),
        *_stream_methods(processes),
    )


def _stream_methods(processes: ProcessesApi) -> tuple[Method, ...]:
    async def write_stdin(params: calls.WriteStdin, link: LinkPort) -> calls.StdinOffset:
        return await processes.write_stdin(params)

    async def close_stdin(params: calls.CloseStdin, link: LinkPort) -> calls.Empty:
        return await processes.close_stdin(params)

    async def resize(params: calls.Resize, link: LinkPort) -> calls.Empty:
        return await processes.resize(params)

    return (
        Method(name="process.attach", params=calls.ProcessAttach, handler=processes.attach),
        Method(name="process.detach", params=calls.ProcessName, handler=processes.detach),
        Method(name="process.ack", params=calls.ProcessAck, handler=processes.ack),
        Method(name="process.write_stdin", params=calls.WriteStdin, handler=write_stdin),
        Method(name="process.close_stdin", params=calls.CloseStdin, handler=close_stdin),
        Method(name="process.resize", params=calls.Resize, handler=resize),
    )
