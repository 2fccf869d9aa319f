"""Typed reading of one OCI seccomp file: each reader returns the value it promises or fails with file, line and key.

Unknown keys are errors with the nearest right spelling: a limit dropped in silence is a policy widened.
Pure. Source: OCI runtime-spec `config-linux.md` (Seccomp), and the fields docker and podman add (`archMap`, `includes`, `excludes`,
`name`, `comment`, `errno`, `defaultErrno`).
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import NoReturn

from coworkd.seccomp.located_json import Located, fail, nearest_word
from coworkd.seccomp.rules import LONG_MASK, MAX_ERRNO, Action, Kind, Op

ACTIONS = {
    "SCMP_ACT_KILL": Kind.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": Kind.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": Kind.KILL_PROCESS,
    "SCMP_ACT_TRAP": Kind.TRAP,
    "SCMP_ACT_ERRNO": Kind.ERRNO,
    "SCMP_ACT_LOG": Kind.LOG,
    "SCMP_ACT_ALLOW": Kind.ALLOW,
}
_REFUSED_ACTIONS = {
    "SCMP_ACT_TRACE": "it needs a tracer, and without one every such call fails with ENOSYS",
    "SCMP_ACT_NOTIFY": "it needs a supervisor behind a listener, which an admin's filter has not got",
}
OPERATORS = {
    "SCMP_CMP_NE": Op.NE,
    "SCMP_CMP_LT": Op.LT,
    "SCMP_CMP_LE": Op.LE,
    "SCMP_CMP_EQ": Op.EQ,
    "SCMP_CMP_GE": Op.GE,
    "SCMP_CMP_GT": Op.GT,
}
MASKED_EQ = "SCMP_CMP_MASKED_EQ"


class Fields:
    """One JSON object of the file `name`. A key whose value is null is as if it were not there, as in docker and podman."""

    def __init__(self, name: str, node: Located, what: str, known: Collection[str]) -> None:
        self.name, self.line, self.what = name, node.line, what
        if not isinstance(node.value, dict):
            fail(name, node.line, f"{what} must be an object")
        for key, value in node.value.items():
            if key not in known:
                fail(name, value.line, f"{what} has no key {key!r}{nearest_word(key, tuple(known))}", key=key)
        self._members: dict[str, Located] = {key: value for key, value in node.value.items() if value.value is not None}

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def fault(self, key: str, message: str) -> NoReturn:
        """Fail at the line of `key`, or of the object where the key is missing."""
        line = self._members[key].line if key in self._members else self.line
        fail(self.name, line, f"{self.what}: {key}: {message}", key=key)

    def node(self, key: str) -> Located | None:
        return self._members.get(key)

    def text(self, key: str) -> str | None:
        node = self._members.get(key)
        if node is not None and not isinstance(node.value, str):
            self.fault(key, "must be a string")
        return None if node is None else str(node.value)

    def number(self, key: str, *, most: int = LONG_MASK) -> int | None:
        """A whole number from 0 to `most`; true and 1.0 are none."""
        node = self._members.get(key)
        if node is None:
            return None
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            self.fault(key, f"must be a whole number from 0 to {most}")
        return int(value)

    def array(self, key: str) -> list[Located]:
        node = self._members.get(key)
        if node is None:
            return []
        if not isinstance(node.value, list):
            self.fault(key, "must be a list")
        return list(node.value)

    def texts(self, key: str) -> list[tuple[str, int]]:
        """Strings and their lines."""
        found: list[tuple[str, int]] = []
        for item in self.array(key):
            if not isinstance(item.value, str):
                fail(self.name, item.line, f"{self.what}: {key}: must be a list of strings", key=key)
            found.append((item.value, item.line))
        return found

    def chosen(self, key: str, words: Collection[str]) -> str:
        """One of `words`; missing is an error."""
        word = self.text(key)
        if word is None:
            self.fault(key, f"is missing; it is one of {', '.join(words)}")
        if word not in words:
            self.fault(key, f"{word!r} is none of {', '.join(words)}{nearest_word(word, tuple(words))}")
        return word


def read_action(fields: Fields, key: str, errno_key: str, errno_name_key: str) -> Action:
    """An action and its errno, EPERM where none is given (as libseccomp's callers do)."""
    word = fields.text(key)
    if word in _REFUSED_ACTIONS:
        fields.fault(key, f"{word} is not taken here: {_REFUSED_ACTIONS[word]}; use SCMP_ACT_ERRNO or SCMP_ACT_LOG")
    kind = ACTIONS[fields.chosen(key, ACTIONS)]
    value = fields.number(errno_key, most=MAX_ERRNO)
    name = fields.text(errno_name_key)
    if name is not None:
        named = getattr(errno, name, None) if name.isupper() and name.startswith("E") else None
        if not isinstance(named, int):
            fields.fault(errno_name_key, f"{name!r} is no errno{nearest_word(name, tuple(errno.errorcode.values()))}")
        if value is not None and value != named:
            fields.fault(errno_name_key, f"{name} is {named}, but {errno_key} says {value}; keep one")
        value = named
    if kind is not Kind.ERRNO:
        return Action(kind)
    return Action(kind, errno.EPERM if value is None else value)
