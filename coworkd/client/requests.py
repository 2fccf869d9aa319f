"""The parameters of the three calls people make by hand, from plain Python values. Pure.

Arguments and paths are text or bytes; text goes the way os.fsencode goes, so that what `sys.argv` holds arrives as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

from coworkd.model.calls import ProcessRun, ProcessStart
from coworkd.model.errors import InvalidParams
from coworkd.model.names import OsBytes
from coworkd.model.policy import LimitsRequest
from coworkd.model.process import OnFull, SpoolRequest, TtySize

Text = str | bytes


def os_bytes(value: Text) -> OsBytes:
    """Text or bytes as the kernel gets it."""
    return OsBytes(os.fsencode(value))


def argument_list(argv: Sequence[Text]) -> list[OsBytes]:
    """`argv` as it travels; a lone string is a mistake and raises `InvalidParams`."""
    if isinstance(argv, str | bytes):
        raise InvalidParams(f"argv must be a list of arguments, not one text: write [{argv!r}]", key="argv")
    return [os_bytes(argument) for argument in argv]


def run_request(
    session: str,
    argv: Sequence[Text],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Text | None = None,
    profile: str | None = None,
    limits: LimitsRequest | None = None,
    timeout_s: float | None = None,
    input: bytes | None = None,
    request_id: str | None = None,
) -> ProcessRun:
    """`process.run`: `input` is all of stdin, None an empty one; `timeout_s` ends the command in the guest."""
    return ProcessRun(
        session=session,
        argv=argument_list(argv),
        env=None if env is None else dict(env),
        cwd=None if cwd is None else os_bytes(cwd),
        profile=profile,
        limits=limits,
        timeout_s=timeout_s,
        input=input,
        request_id=request_id,
    )


def start_request(
    session: str,
    argv: Sequence[Text],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Text | None = None,
    stdin: bool = False,
    tty: tuple[int, int] | None = None,
    profile: str | None = None,
    limits: LimitsRequest | None = None,
    timeout_s: float | None = None,
    id: str | None = None,
    attach: bool = True,
    acknowledge: bool = False,
    on_full: OnFull | None = None,
    spool: SpoolRequest | None = None,
    request_id: str | None = None,
) -> ProcessStart:
    """`process.start`, attached unless `attach` is false: `stdin` opens a pipe, `tty` is (rows, cols) and stands for all three streams."""
    source: Literal["none", "pipe"] = "pipe" if stdin else "none"
    return ProcessStart(
        session=session,
        argv=argument_list(argv),
        env=None if env is None else dict(env),
        cwd=None if cwd is None else os_bytes(cwd),
        stdin=source,
        tty=None if tty is None else TtySize(rows=tty[0], cols=tty[1]),
        profile=profile,
        limits=limits,
        timeout_s=timeout_s,
        id=id,
        attach=attach,
        acknowledge=acknowledge,
        on_full=on_full,
        spool=spool,
        request_id=request_id,
    )
