"""What of a value may leave the machine: rules by which a tree is copied, key by key. Pure.

Rules
- Only what a rule names is copied; every key it does not name, and every value of another kind than it says, is left out and counted.
- There is no rule that lets any text through: prose is scrubbed word by word (`report_words`), a text of fixed form must have all of that
  form, a name becomes a pseudonym.
- `command` copies arguments and paths, and only where the person who asked said so. What is in an environment is never copied.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from coworkd.services.report_words import REMOVED, Words

PSEUDONYM_CHARACTERS = 8
TEXT_CHARACTERS = 4096

VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~:_-]{0,79}\Z")
HEX = re.compile(r"[0-9a-f]{0,128}\Z")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
WORD = re.compile(r"[a-z][a-z0-9_.-]{0,39}\Z")
"""For keys whose values coworkd or the system chooses from a list: states, kinds, file systems."""

Rule = Callable[["Redactor", Any], Any]


class Redactor:
    """Applies rules; `removed` counts what did not pass."""

    def __init__(
        self, words: Words, *, with_names: bool = False, with_commands: bool = False, salt: bytes | None = None
    ) -> None:
        """`salt` None: one of its own."""
        self.with_names = with_names
        self.with_commands = with_commands
        self._words = words
        self.salt = salt or os.urandom(16)
        """A pseudonym cannot be found out by trying names, and is the same within one bundle only."""
        self._removed = 0

    @property
    def removed(self) -> int:
        return self._removed + self._words.removed

    @property
    def names(self) -> tuple[str, ...]:
        """Those that have pseudonyms so far."""
        return self._words.names

    def scrub(self, text: str) -> str:
        return self._words.scrub(text[:TEXT_CHARACTERS])

    def pseudonym(self, name: str) -> str:
        """The name a session has in the bundle, wherever it stands."""
        if self.with_names:
            said = name
        else:
            digest = hashlib.sha256(self.salt + name.encode("utf-8", "surrogateescape")).hexdigest()
            said = f"name-{digest[:PSEUDONYM_CHARACTERS]}"
        self._words.name(name, said)
        return said

    def remove(self) -> str:
        self._removed += 1
        return REMOVED


def number(redactor: Redactor, value: Any) -> Any:
    """Numbers, true, false and nothing."""
    return value if value is None or isinstance(value, bool | int | float) else redactor.remove()


def prose(redactor: Redactor, value: Any) -> Any:
    """A sentence for people, scrubbed; numbers too."""
    return redactor.scrub(value) if isinstance(value, str) else number(redactor, value)


def name(redactor: Redactor, value: Any) -> Any:
    """The name of a session or of a process."""
    if value is None:
        return None
    return redactor.pseudonym(value) if isinstance(value, str) else redactor.remove()


def form(pattern: re.Pattern[str]) -> Rule:
    """A text that is all of a fixed form."""

    def rule(redactor: Redactor, value: Any) -> Any:
        if value is None:
            return None
        return value if isinstance(value, str) and pattern.match(value) else redactor.remove()

    return rule


def command(redactor: Redactor, value: Any) -> Any:
    """Arguments and paths, where they were asked for."""
    if value is None:
        return None
    if not redactor.with_commands:
        return redactor.remove()
    if isinstance(value, list | tuple):
        return [command(redactor, member) for member in value]
    return value if isinstance(value, str | int | float) else redactor.remove()


def each(rule: Rule) -> Rule:
    """A list."""

    def apply(redactor: Redactor, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return None if value is None else redactor.remove()
        return [rule(redactor, member) for member in value]

    return apply


def record(fields: Mapping[str, Rule]) -> Rule:
    """A map of which these keys pass."""

    def apply(redactor: Redactor, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return None if value is None else redactor.remove()
        for _ in [key for key in value if key not in fields]:
            redactor.remove()
        return {key: rule(redactor, value[key]) for key, rule in fields.items() if key in value}

    return apply


def mapping(key_rule: Rule, value_rule: Rule) -> Rule:
    """A map whose keys are values as well."""

    def apply(redactor: Redactor, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return None if value is None else redactor.remove()
        return {key_rule(redactor, key): value_rule(redactor, member) for key, member in value.items()}

    return apply


def tree(redactor: Redactor, value: Any) -> Any:
    """Whatever is of our own making, such as a parsed configuration: its keys are scrubbed like its texts."""
    if isinstance(value, Mapping):
        return {redactor.scrub(str(key)): tree(redactor, member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [tree(redactor, member) for member in value]
    return prose(redactor, value)
