"""Logs: lines people know, beside structured JSON, and a ring a host can read.

Component loggers are `logging.getLogger("coworkd.<component>")`; `extra={"fields": {…}}` carries structured values.
"""

from __future__ import annotations

from coworkd.model.calls import Empty, Logs, LogsAnswer, SetLogLevel


class LogService:
    """The handlers of this process's logging; `close` takes them off again."""

    def logs(self, params: Logs) -> LogsAnswer:
        """The newest lines of the ring that fit, oldest first."""
        raise NotImplementedError

    def set_log_level(self, params: SetLogLevel) -> Empty:
        """Set the level of one component, or of all."""
        raise NotImplementedError

    def close(self) -> None:
        """Flush and take the handlers off. Idempotent."""
        raise NotImplementedError
