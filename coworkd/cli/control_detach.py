"""The keys that leave a command's terminal without ending the command: parsed, and found among what is typed. Pure.

Rules
- Written as docker and podman write them: keys with commas between them, each one character or `ctrl-` and one. `none` is no keys.
- What begins like the keys is held back until it is known whether they follow; whoever reads the keyboard passes it on with `flush`
  when nothing came for `PATIENCE_S`, so that a single Ctrl-P still reaches the shell.
- They may come in any number of pieces, and stand in the middle of one.
"""

from __future__ import annotations

from collections.abc import Mapping

from coworkd.model.errors import InvalidParams

DEFAULT_KEYS = "ctrl-p,ctrl-q"
KEYS_VARIABLE = "COWORKD_DETACH_KEYS"
NO_KEYS = "none"
KEYS_LIMIT = 8
PATIENCE_S = 0.5
_CONTROL = {chr(code + 0x60): code for code in range(1, 27)} | {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def choose_detach_keys(option: str | None, environment: Mapping[str, str]) -> bytes:
    """What `--detach-keys` says, else the variable, else the default. Raises `InvalidParams`."""
    return parse_detach_keys(option if option is not None else environment.get(KEYS_VARIABLE) or DEFAULT_KEYS)


def parse_detach_keys(text: str) -> bytes:
    """The bytes that are typed; empty for none. Raises `InvalidParams`, which says how keys are written."""
    if text in ("", NO_KEYS):
        return b""
    words = text.split(",")
    if len(words) > KEYS_LIMIT:
        raise InvalidParams(f"--detach-keys {text!r}: at most {KEYS_LIMIT} keys", key="detach-keys")
    return bytes(_key(word, text) for word in words)


def _key(word: str, text: str) -> int:
    head, dash, letter = word.lower().partition("-")
    if dash and head == "ctrl" and letter in _CONTROL:
        return _CONTROL[letter]
    if len(word) == 1 and "!" <= word <= "~":
        return ord(word)
    raise InvalidParams(
        f"--detach-keys {text!r}: {word!r} is no key; write letters or ctrl-LETTER with commas between them, as {DEFAULT_KEYS},"
        f" or {NO_KEYS}",
        key="detach-keys",
    )


class DetachKeys:
    """Looks for `keys` in a stream of what is typed; without keys everything passes."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    @property
    def holding(self) -> bool:
        """Something is held back that may be the beginning of the keys."""
        return bool(self._held)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what is to be passed on, whether the keys were typed); what was typed behind them is dropped."""
        if not self._keys:
            return data, False
        typed = self._held + data
        before, found, _ = typed.partition(self._keys)
        if found:
            self._held = b""
            return before, True
        held = next(size for size in range(len(self._keys) - 1, -1, -1) if typed.endswith(self._keys[:size]))
        self._held = typed[len(typed) - held :]
        return typed[: len(typed) - held], False

    def flush(self) -> bytes:
        """What was held back: it was meant for the command after all."""
        held, self._held = self._held, b""
        return held
