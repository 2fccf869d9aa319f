"""What goes into a command: stdin, the size of its terminal, signals.

Rules
- A signal is in the audit log before it is sent; input is not recorded.
- Once stdin is closed here the launcher closes the copy that it keeps, so that the command reads its end.

Killing is not here: see `process_ending`.
"""

from __future__ import annotations

import errno
import logging

from coworkd.model import calls
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState, SandboxSetupFailed
from coworkd.model.ports import AuditPort, LauncherPort
from coworkd.model.process import TtySize
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_request import parse_signal
from coworkd.services.process_table import ProcessTable
from coworkd.services.stdin import Stdin
from coworkd.services.terminal import check_size

_log = logging.getLogger("coworkd.process")


class Inputs:
    """The verbs of input, over all processes there are."""

    def __init__(self, *, table: ProcessTable, launcher: LauncherPort, audit: AuditPort) -> None:
        self._table = table
        self._launcher = launcher
        self._audit = audit

    async def feed(self, process: LiveProcess, stdin: Stdin, data: bytes) -> None:
        """Write all of `data`, then close: the input of a one-shot."""
        await stdin.feed(data)
        await self._close_stdin(process, stdin)

    async def write_stdin(self, params: calls.WriteStdin) -> calls.StdinOffset:
        """As `stdin.Stdin.write`, or `append` without an offset; `InvalidState` where there is no stdin."""
        process = self._table.find(params.process)
        if params.offset is not None and params.offset < 0:
            raise InvalidParams(f"offset must be 0 or more, not {params.offset}", key="offset")
        stdin = self._stdin(process)
        if params.offset is None:
            taken = await stdin.append(params.data)
            return calls.StdinOffset(offset=stdin.wanted or 0, taken=taken)
        return calls.StdinOffset(offset=await stdin.write(params.offset, params.data))

    async def close_stdin(self, params: calls.CloseStdin) -> calls.Empty:
        """End of file for the command, after what was taken; closing twice does nothing."""
        process = self._table.find(params.process)
        if "tty" in process.streams:
            raise InvalidState(
                f"process {process.id} has a terminal, whose input has no end: write its end-of-file character (0x04)",
                process=process.id,
            )
        stdin = self._stdin(process)
        stdin.check_close(params.offset)
        await self._close_stdin(process, stdin)
        return calls.Empty()

    def _stdin(self, process: LiveProcess) -> Stdin:
        if process.stdin is None:
            raise InvalidState(f"process {process.id} has no stdin: start it with stdin=pipe", process=process.id)
        return process.stdin

    async def _close_stdin(self, process: LiveProcess, stdin: Stdin) -> None:
        if stdin.open:
            stdin.close()
            try:
                await self._launcher.release(process.id, "stdin")
            except CoworkError as error:
                _log.debug("stdin of %s was closed with its command: %s", process.id, error.message)

    async def resize(self, params: calls.Resize) -> calls.Empty:
        """Set the terminal's size; its foreground group gets SIGWINCH."""
        size = check_size(TtySize(rows=params.rows, cols=params.cols))
        process = self._table.find(params.process)
        if process.terminal is None:
            raise InvalidState(f"process {process.id} has no terminal", process=process.id)
        process.terminal.resize(size)
        return calls.Empty()

    async def signal(self, params: calls.SignalProcess) -> calls.Empty:
        """Signal the command's process group. `InvalidState` where it has not started or has ended."""
        number = parse_signal(params.signal)
        process = self._table.find(params.process)
        if not process.may_act:
            raise InvalidState(f"process {process.id} is {process.state}, not running", process=process.id)
        await self._audit.record(
            "process.signal", {"session": process.session, "process": process.id, "signal": number}
        )
        try:
            await self._launcher.signal(process.id, number)
        except SandboxSetupFailed as error:
            if error.details.get("errno") != errno.ESRCH:
                raise
            what = "has ended" if process.started or not process.running else "is still starting"
            raise InvalidState(f"the command of process {process.id} {what}", process=process.id) from error
        return calls.Empty()
