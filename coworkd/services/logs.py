"""Logs: the lines people know, beside structured JSON, and a ring that a host can read.

Component loggers are `logging.getLogger("coworkd.<component>")`. `extra={"fields": {…}}` gives structured values,
`extra={"instance": ID}` makes the component read `process:ID`.

    2026/02/28 15:35:54 [process:7] started PID 812 session=demo
        to standard error; a traceback follows line by line
    {"at": …, "level": "info", "component": "process:7", "message": …, "fields": {…}, "traceback"?: …}
        to the file

Rules
- One record is one line wherever it is shown: control, line-separating and text-direction characters are escaped, so
  what a host or command chose to be called cannot forge a line. Messages are cut at `MESSAGE_LIMIT`.
- Nothing secret gets out by structure: of bytes only their number is shown, of maps and lists only their size, and
  fields with a name of `SECRET_NAMES` not at all.
- All is bounded: the ring by `RING_LINES` (the oldest go, and are counted), the file by two of `FILE_LIMIT_BYTES`.
- A log that cannot be written never stops the work: lines that a full disk or a closed pipe refused are counted too.

It does not keep what must be proven (`services.audit` does), and touches no logger but `coworkd` and those below.
Sources: sd-daemon(3) for the `<N>` prefix that tells journald the priority.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import msgspec

from coworkd.model.calls import Empty, LogLine, Logs, LogsAnswer, SetLogLevel
from coworkd.model.errors import DiskFailed, InvalidParams, NotFound, OutOfRange

ROOT = "coworkd"
RING_LINES = 2000
MESSAGE_LIMIT = 4096
FILE_LIMIT_BYTES = 8 * 1024 * 1024
SECRET_NAMES = frozenset({"token", "password", "secret", "authorization", "cookie", "env", "stdin", "data", "key"})
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}


def escape(text: str) -> str:
    """`text` on one line: each character that could break, hide or reorder a line as `\\n`, `\\xNN` or `\\uNNNN`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def compose_line(record: logging.LogRecord) -> LogLine:
    """What is shown of a record, cleaned and bounded."""
    component = record.name.removeprefix(f"{ROOT}.")
    instance = getattr(record, "instance", None)
    if instance is not None:
        component = f"{component}:{escape(str(instance))}"
    fields = getattr(record, "fields", {})
    return LogLine(
        at=record.created,
        level=level_name(record.levelno),
        component=component,
        message=_bounded(record.getMessage()),
        fields={name: _shown(name, value) for name, value in fields.items()},
    )


def compose_text(line: LogLine, when: time.struct_time) -> str:
    """The known form, without a line end."""
    fields = "".join(f" {name}={value}" for name, value in line.fields.items())
    return f"{time.strftime('%Y/%m/%d %H:%M:%S', when)} [{line.component}] {line.message}{fields}"


def level_name(number: int) -> str:
    """The nearest of our four levels at or below a level of `logging`."""
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "debug")


def _bounded(text: str) -> str:
    escaped = escape(text[: MESSAGE_LIMIT + 1])
    if len(escaped) <= MESSAGE_LIMIT:
        return escaped
    return f"{escaped[:MESSAGE_LIMIT]}… ({len(text)} characters)"


def _shown(name: str, value: object) -> Any:
    if name.lower() in SECRET_NAMES:
        return "(not logged)"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"({len(value)} bytes)"
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return f"({len(value)} items)"
    return _bounded(str(value))


class LogService(logging.Handler):
    """The one handler of this process: every line to the stream, the file and the ring. `close` takes it off again."""

    def __init__(
        self,
        *,
        level: str = "info",
        stream: TextIO | None = sys.stderr,
        file: Path | None = None,
        localtime: Callable[[float], time.struct_time] = time.localtime,
        journal: bool | None = None,
    ) -> None:
        """Take over the logger `coworkd`. Raises `DiskFailed` where `file` (0600) cannot be opened, `InvalidParams`.

        `stream` stays the caller's. `journal` puts `<N>` before each line; None finds out from JOURNAL_STREAM.
        """
        super().__init__()
        self._ring: deque[LogLine] = deque(maxlen=RING_LINES)
        self._dropped = 0
        self._newest = 0
        """The number of the newest line."""
        self._stream = stream
        self._localtime = localtime
        self._journal = "JOURNAL_STREAM" in os.environ if journal is None else journal
        self._file = _LogFile(file) if file is not None else None
        self._root = logging.getLogger(ROOT)
        self._before = (self._root.level, self._root.propagate)
        self._root.setLevel(_level(level))
        self._root.propagate = False
        self._root.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging` under this handler's lock."""
        line = compose_line(record)
        if len(self._ring) == RING_LINES:
            self._dropped += 1
        self._ring.append(line)
        self._newest += 1
        traceback = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        try:
            self._write(line, traceback)
        except (OSError, ValueError):  # ValueError: the stream was closed under us
            self._dropped += 1

    def logs(self, params: Logs) -> LogsAnswer:
        """The newest lines that fit, or with `after` those that follow it; oldest first.

        `dropped` counts lines that the ring or a sink has lost since start. `component` fits itself and its instances; `level` is the
        least. Raises `InvalidParams`, `OutOfRange` for an `after` that no line of this coworkd has reached yet.
        """
        if not 1 <= params.limit <= RING_LINES:
            raise InvalidParams(f"limit must be 1 to {RING_LINES}, not {params.limit}", key="limit")
        least = _level(params.level) if params.level is not None else 0
        self.acquire()
        try:
            lines, newest = list(self._ring), self._newest
        finally:
            self.release()
        first = newest - len(lines) + 1
        fits = [
            (number, line)
            for number, line in enumerate(lines, first)
            if LEVELS[line.level] >= least
            and (params.component is None or params.component in (line.component, line.component.partition(":")[0]))
        ]
        if params.after is None:
            return LogsAnswer(
                lines=tuple(line for _, line in fits[-params.limit :]), dropped=self._dropped, next=newest
            )
        if not 0 <= params.after <= newest:
            raise OutOfRange(
                f"no line {params.after} was logged yet, the newest is {newest}; ask after 0 for everything that is kept",
                after=params.after,
                newest=newest,
            )
        behind = [(number, line) for number, line in fits if number > params.after]
        shown = behind[: params.limit]
        return LogsAnswer(
            lines=tuple(line for _, line in shown),
            dropped=self._dropped,
            next=newest if len(shown) == len(behind) else shown[-1][0],
            missed=max(0, first - params.after - 1),
        )

    def set_log_level(self, params: SetLogLevel) -> Empty:
        """Set the least level of one component; without one, of all, and no component differs any more.

        Raises `NotFound` for a component that does not log.
        """
        level = _level(params.level)
        loggers = _component_loggers()
        if params.component is None:
            self._root.setLevel(level)
            self._reset_components()
        elif params.component in loggers:
            loggers[params.component].setLevel(level)
        else:
            known = ", ".join(sorted(loggers))
            raise NotFound(f"no component {escape(params.component)!r} logs here; there are {known}", key="component")
        return Empty()

    def close(self) -> None:
        """Take the handler off, put the logger's settings back, close the file. Idempotent."""
        if self in self._root.handlers:
            self._root.removeHandler(self)
            self._root.setLevel(self._before[0])
            self._root.propagate = self._before[1]
            self._reset_components()
        if self._file is not None:
            self._file.close()
        super().close()

    def _reset_components(self) -> None:
        for logger in _component_loggers().values():
            logger.setLevel(logging.NOTSET)

    def _write(self, line: LogLine, traceback: str) -> None:
        if self._file is not None:
            record = msgspec.structs.asdict(line)
            if traceback:
                record["traceback"] = "\n".join(escape(part) for part in traceback.splitlines())
            self._file.write(msgspec.json.encode(record) + b"\n")
        if self._stream is None:
            return
        prefix = f"<{_PRIORITIES[line.level]}>" if self._journal else ""
        when = self._localtime(line.at)
        texts = [compose_text(line, when)]
        for part in traceback.splitlines():
            shown = msgspec.structs.replace(line, message=f"| {escape(part)}", fields={})
            texts.append(compose_text(shown, when))
        self._stream.write("".join(f"{prefix}{text}\n" for text in texts))
        self._stream.flush()


class _LogFile:
    """An append-only file of bounded size: when it is full it becomes `NAME.1`, in place of the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0
        try:
            self._open()
        except OSError as error:
            raise DiskFailed(
                f"the log file {path} cannot be opened: {error.strerror}; change log.file in coworkd.toml",
                path=str(path),
                errno=error.errno,
            ) from error

    def write(self, data: bytes) -> None:
        if self._size + len(data) > FILE_LIMIT_BYTES:
            os.close(self._fd)
            self._fd = -1
            os.replace(self._path, f"{self._path}.1")
        if self._fd < 0:
            self._open()
        self._size += os.write(self._fd, data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size


def _component_loggers() -> dict[str, logging.Logger]:
    return {
        name.removeprefix(f"{ROOT}."): logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if name.startswith(f"{ROOT}.") and isinstance(logger, logging.Logger)
    }


def _level(name: str) -> int:
    if name not in LEVELS:
        raise InvalidParams(f"level {name!r} is none of {', '.join(LEVELS)}", key="level")
    return LEVELS[name]
