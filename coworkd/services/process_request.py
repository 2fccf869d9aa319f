"""What a caller asks of a process, parsed: past here no NUL, no empty argv, no relative path, no signal that is none.

Pure. What policy allows and what the kernel can carry (argument sizes) is judged by `sandbox.compose`.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence

from msgspec import Struct

from coworkd.model.calls import ProcessRun, ProcessStart
from coworkd.model.errors import InvalidParams
from coworkd.model.names import parse_process_id
from coworkd.model.policy import LimitsRequest
from coworkd.model.process import OnFull, ProcessSpec, SpoolRequest, TtySize
from coworkd.services.process_exit import signal_name
from coworkd.services.spools import FLOOR_BYTES
from coworkd.services.terminal import check_size

ONE_SHOT_PREFIX = "run."
"""Begins the id of every `process.run`, and of nothing else: a restarted coworkd knows that nobody waits for it."""


class StartRequest(Struct, frozen=True, kw_only=True):
    """One `process.start` or `process.run`. `id` None is to be made up; `timeout_s` None means the policy's."""

    id: str | None
    session: str
    argv: tuple[bytes, ...]
    env: dict[str, str]
    cwd: bytes | None
    tty: TtySize | None
    stdin: bool
    profile: str | None
    limits: LimitsRequest
    timeout_s: float | None
    on_full: OnFull | None = None
    spool: SpoolRequest = SpoolRequest()
    input: bytes = b""
    one_shot: bool = False
    awaited: bool = False
    """Whether a full spool waits for its caller, who says what has come."""

    def spec(self, process: str) -> ProcessSpec:
        """The same, as the sandbox wants it."""
        return ProcessSpec(
            process=process,
            session=self.session,
            argv=self.argv,
            env=self.env,
            cwd=self.cwd,
            stdin=self.stdin,
            tty=self.tty,
        )


def parse_start(params: ProcessStart) -> StartRequest:
    """Raises `InvalidParams` with `key`."""
    return StartRequest(
        id=None if params.id is None else _parse_id(params.id),
        session=params.session,
        argv=_parse_argv(params.argv),
        env=_parse_env(params.env or {}),
        cwd=_parse_cwd(params.cwd),
        tty=None if params.tty is None else check_size(params.tty),
        stdin=params.stdin == "pipe" and params.tty is None,
        profile=params.profile,
        limits=params.limits or LimitsRequest(),
        timeout_s=_parse_timeout(params.timeout_s),
        on_full=params.on_full,
        spool=_parse_spool(params.spool or SpoolRequest(), tty=params.tty is not None),
        awaited=params.attach and params.acknowledge and params.on_full is None,
    )


def parse_run(params: ProcessRun) -> StartRequest:
    """Raises `InvalidParams` with `key`."""
    return StartRequest(
        id=None,
        session=params.session,
        argv=_parse_argv(params.argv),
        env=_parse_env(params.env or {}),
        cwd=_parse_cwd(params.cwd),
        tty=None,
        stdin=bool(params.input),
        profile=params.profile,
        limits=params.limits or LimitsRequest(),
        timeout_s=_parse_timeout(params.timeout_s),
        input=params.input or b"",
        one_shot=True,
    )


def parse_signal(value: int | str) -> int:
    """`15`, `"TERM"`, `"SIGTERM"` or `"RTMIN+1"` to its number, or `InvalidParams`."""
    names = {name.removeprefix("SIG"): int(number) for name, number in signal.Signals.__members__.items()}
    for valid in map(int, signal.valid_signals()):
        names[signal_name(valid)] = names[str(valid)] = valid
    number = names.get(str(value).upper().removeprefix("SIG"))
    if number is None:
        raise InvalidParams(f"{value!r} is no signal; give a name like TERM or a number of 1 to 64", key="signal")
    return number


def parse_seconds(value: float, key: str) -> float:
    """A finite span of 0 or more, or `InvalidParams`."""
    if not math.isfinite(value) or value < 0:
        raise InvalidParams(f"{key} must be 0 or more seconds, not {value}", key=key)
    return value


def _parse_id(text: str) -> str:
    if text.startswith(ONE_SHOT_PREFIX):
        raise InvalidParams(
            f"process id {text!r} is not usable: {ONE_SHOT_PREFIX!r} begins those of process.run", key="id"
        )
    return parse_process_id(text)


def _parse_argv(argv: Sequence[bytes]) -> tuple[bytes, ...]:
    if not argv or not argv[0]:
        raise InvalidParams("argv must begin with the command to run", key="argv")
    for position, item in enumerate(argv):
        if b"\0" in item:
            raise InvalidParams(
                f"argv[{position}] has a NUL byte, which no argument can carry", key=f"argv[{position}]"
            )
    return tuple(argv)


def _parse_env(env: Mapping[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise InvalidParams(f"{name!r} is no name of an environment variable", key="env")
        if "\0" in value:
            raise InvalidParams(f"environment variable {name} has a NUL byte", key="env")
    return dict(env)


def _parse_cwd(cwd: bytes | None) -> bytes | None:
    if cwd is not None and (not cwd.startswith(b"/") or b"\0" in cwd):
        raise InvalidParams("cwd must be an absolute path without NUL, as the sandbox sees it", key="cwd")
    return cwd


def _parse_spool(spool: SpoolRequest, *, tty: bool) -> SpoolRequest:
    if tty and spool.where == "disk":
        raise InvalidParams("what a terminal shows is kept in memory: leave spool.where out", key="spool.where")
    if spool.limit_bytes is not None and spool.limit_bytes < FLOOR_BYTES:
        raise InvalidParams(
            f"spool.limit_bytes must be at least {FLOOR_BYTES}, not {spool.limit_bytes}", key="spool.limit_bytes"
        )
    return spool


def _parse_timeout(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not parse_seconds(timeout_s, "timeout_s"):
        raise InvalidParams("timeout_s must be more than 0; leave it out for none", key="timeout_s")
    return timeout_s
