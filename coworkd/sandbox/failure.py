"""What bubblewrap said when a command could not start, as a stage and an errno.

bubblewrap runs with an empty environment, so its words and libc's are those of the C locale. Only called when it is known that the
command never ran: then all of stderr is bubblewrap's.
"""

from __future__ import annotations

import errno
import os
import re

_BEFORE_EXEC = re.compile(rb"\+([0-9]{1,20}) ")
_EXEC = "execvp "
_CHDIR = "Can't chdir to "
_ERRNO_DIGITS = 5
_BY_TEXT = {os.strerror(number): number for number in errno.errorcode}
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_TOO_BIG = (errno.E2BIG,)
_TOO_MANY_WORDS = "Exceeded maximum number of arguments"
_RESOURCES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)
_USERNS_HINT = (
    "; on Ubuntu 23.10 and newer AppArmor restricts user namespaces: install an AppArmor profile for bwrap"
    " (see `coworkctl doctor`)"
)


def parse_failure(stderr: bytes, command: bytes) -> tuple[str, int | None, str]:
    """(stage, errno, sentence) for `StartError`; stages are `model.errors.START_STAGES`."""
    text = stderr.decode(errors="replace").strip()
    said = _last_words(text)
    number = _BY_TEXT.get(said.rpartition(": ")[2])
    name = os.fsdecode(command)
    if said.startswith(_EXEC):
        return _exec_failure(name, number)
    if said.startswith(_CHDIR):
        where = said.removeprefix(_CHDIR).rpartition(": ")[0]
        return _cwd_failure(where, number, said)
    if said.startswith(_TOO_MANY_WORDS):
        return "too_big", errno.E2BIG, f"{name}: too many arguments and environment variables: {said}"
    if number in _RESOURCES:
        return "resources", number, f"the sandbox could not be set up: {said}"
    hint = _USERNS_HINT if "uid map" in said or "RTM_NEWADDR" in said else ""
    return (
        "sandbox_setup",
        number,
        f"the sandbox could not be set up: {said or 'bubblewrap ended without a word'}{hint}",
    )


def parse_shim(said: bytes) -> tuple[float | None, bytes]:
    """What the shim has said of its exec: when that came (seconds, `time.time`), if it came to it; and `stage errno`, if it failed."""
    matched = _BEFORE_EXEC.match(said)
    return (None, said) if matched is None else (int(matched[1]) / 1e9, said[matched.end() :])


def explain_shim(said: bytes, command: bytes, cwd: bytes) -> tuple[str, int | None, str]:
    """The same of the shim's `stage errno`: it stands where bubblewrap would, and nothing it says is trusted."""
    stage, _, text = said.decode(errors="replace").partition(" ")
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < _ERRNO_DIGITS else 0
    if stage == "exec":
        return _exec_failure(os.fsdecode(command), number or None)
    if stage == "cwd":
        return _cwd_failure(os.fsdecode(cwd), number or None, "it cannot be entered")
    return "sandbox_setup", number or None, f"the sandbox could not take the command: {_reason(number)}"


def _last_words(text: str) -> str:
    """bubblewrap's last message, which may hold line ends: it repeats the command's name as it is."""
    _, marked, said = f"\n{text}".rpartition("\nbwrap: ")
    if marked:
        return said
    return text.splitlines()[-1] if text else ""


def _reason(number: int) -> str:
    return os.strerror(number) if number else "its shim ended"


def _cwd_failure(where: str, number: int | None, otherwise: str) -> tuple[str, int | None, str]:
    return "bad_cwd", number, f"cwd {where}: {os.strerror(number) if number else otherwise}"


def _exec_failure(name: str, number: int | None) -> tuple[str, int | None, str]:
    reason = os.strerror(number) if number else "it could not be executed"
    if number in _NOT_FOUND:
        return "not_found", number, f"{name}: not found in the sandbox (its PATH and view are not the host's)"
    if number in _TOO_BIG:
        return "too_big", number, f"{name}: {reason}"
    if number in _RESOURCES:
        return "resources", number, f"{name}: {reason}"
    return "not_executable", number, f"{name}: cannot be executed: {reason}"
