"""`coworkctl doctor --bundle FILE`: one file for a report of an error, from whatever still answers.

Rules
- Of its machine coworkd tells as well (`report`), in a guest as here. One that is down, or hangs, is what bundles are for: what it does not
  tell is missing with the reason, and the machine is looked at from here, where coworkd runs on this one.
- No coworkd is started for it.
- What may be in it is said by the rules of `report_redact`; what was left out is counted in its manifest.

Status 0 with a bundle, however much of it is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coworkd import __version__
from coworkd.cli.bundle_file import compose_bundle, write_new
from coworkd.cli.bundle_parts import Asking, parts_of_link
from coworkd.cli.control_link import LOCAL_KINDS, SYSTEM_SOCKET, named_uri, read_token
from coworkd.client.sync import Client, connect
from coworkd.config import Config, load_config
from coworkd.model.calls import ReportPart
from coworkd.model.errors import CoworkError, InvalidParams
from coworkd.services.report import parts_here, tell
from coworkd.services.report_machine import find_pids
from coworkd.services.report_redact import Redactor
from coworkd.services.report_words import Words

CONNECT_S = 10.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Bundle:
    """What was collected so far."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.parts: dict[str, str] = {}
        """JSON texts by file."""
        self.listed: list[dict[str, Any]] = []

    def add(self, parts: Iterable[ReportPart]) -> None:
        for part in parts:
            told: dict[str, Any] = {"file": part.file, "source": part.source}
            if part.json is None:
                told["missing"] = part.missing or "nothing was told"
            else:
                self.parts[part.file] = part.json
                told["left_out"] = part.left_out
            self.listed.append(told)

    def lacks(self, file: str, source: str, why: str) -> None:
        self.listed.append({"file": file, "source": source, "missing": self.redactor.scrub(why)})


def bundle(args: argparse.Namespace) -> int:
    """Raises `InvalidParams` for a file that cannot be made."""
    redactor = Redactor(Words.of_this_program(), with_names=args.with_names, with_commands=args.with_commands)
    made, at = Bundle(redactor), time.time()
    uri = named_uri(args) or f"unix://{SYSTEM_SOCKET}"
    with contextlib.ExitStack() as stack:
        client, why = _connect(uri, args)
        if client is None:
            made.lacks("hello.json", "hello", f"coworkd does not answer, nor any call of it: {why}")
            machine_is_told = False
        else:
            asking = Asking(stack.enter_context(client))
            made.add(tell(part, redactor) for part in parts_of_link(asking))
            machine_is_told = _ask_for_machine(asking, made)
        if not machine_is_told and _is_here(uri, client):
            config, audit = _config(args, made), "audit.json" not in made.parts
            made.add(tell(part, redactor) for part in parts_here(config, _pids(made), audit=audit))
    manifest = {
        "made_at": at,
        "made_by": f"coworkctl {__version__}",
        "with_names": args.with_names,
        "with_commands": args.with_commands,
        "parts": made.listed,
    }
    data = compose_bundle(made.parts, manifest, at=at)
    _write(args.bundle, data)
    absent = [told["file"] for told in made.listed if "missing" in told]
    print(
        f"{args.bundle}: {len(made.parts)} parts, {len(data)} bytes; {redactor.removed} words and values were left out",
        file=sys.stderr,
    )
    if absent:
        print(f"missing, for reasons that its manifest.json tells: {', '.join(absent)}", file=sys.stderr)
    return 0


def _ask_for_machine(asking: Asking, made: Bundle) -> bool:
    """Whether coworkd tells of its machine."""
    try:
        made.add(asking.report(made.redactor))
    except CoworkError as error:
        made.lacks("(its machine)", "report", f"coworkd does not tell of its machine: {error.message}")
        return False
    return True


def _connect(uri: str, args: argparse.Namespace) -> tuple[Client | None, str]:
    """A link to a coworkd that is up, comes up or does not; None, and why."""
    try:
        token = read_token(args.token_file)
        return connect(uri, token=token, client_name="coworkctl doctor", timeout_s=CONNECT_S), ""
    except CoworkError as error:
        return None, error.message


def _is_here(uri: str, client: Client | None) -> bool:
    """Whether coworkd runs on this machine: the same boot of the same kernel, or a socket of this one where nobody says."""
    if client is None:
        return uri.startswith(LOCAL_KINDS)
    return client.hello.boot_id == _BOOT_ID.read_text().strip()


def _config(args: argparse.Namespace, made: Bundle) -> Config:
    """The defaults, and that it is missing, where it cannot be read."""
    try:
        return load_config(args.config)
    except CoworkError as error:
        made.lacks("config.json", "coworkd.toml", f"it is not valid, the defaults were gone by: {error.message}")
        return Config()


def _pids(made: Bundle) -> dict[str, int]:
    info, egress = (json.loads(made.parts.get(file, "{}")) for file in ("info.json", "egress.json"))
    told = {"coworkd": info.get("pid"), "launcher": info.get("launcher_pid"), "egress": egress.get("pid")}
    return {**find_pids(), **{name: pid for name, pid in told.items() if isinstance(pid, int) and pid > 0}}


def _write(path: str, data: bytes) -> None:
    try:
        write_new(os.path.abspath(path), data)
    except OSError as error:
        raise InvalidParams(f"{path} cannot be made: {error.strerror}", key="bundle") from error
