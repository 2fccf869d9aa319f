"""Health: how far coming up got, what does not work, and how much there is of everything."""

from __future__ import annotations

from contextlib import AbstractContextManager

from coworkd.model.calls import DoctorAnswer, Empty, HelloAnswer, Info, Logs, LogsAnswer, SetLogLevel, Stats


class Health:
    """Built by `app` from small callables; serves `hello`, `info`, `stats`, `doctor`, `logs` and `set_log_level`."""

    degraded: dict[str, str]

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time one step of coming up. An error inside is noted with the stage and raised on."""
        raise NotImplementedError

    def hello_answer(self, protocol: int, features: tuple[str, ...]) -> HelloAnswer:
        """The answer of `hello`."""
        raise NotImplementedError

    def info(self) -> Info:
        raise NotImplementedError

    def stats(self) -> Stats:
        raise NotImplementedError

    async def doctor(self) -> DoctorAnswer:
        raise NotImplementedError

    def logs(self, params: Logs) -> LogsAnswer:
        raise NotImplementedError

    async def set_log_level(self, params: SetLogLevel) -> Empty:
        raise NotImplementedError
