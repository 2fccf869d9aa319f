"""JSON of what travels: bytes are `{"$bin": base64}`, both ways. Pure.

What a guest has in its names and messages cannot drive the terminal it is printed on: letters that are not to be printed, those that
turn the direction of text among them, are `\\uXXXX`. A parser reads the same text.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from coworkd.model.errors import InvalidParams
from coworkd.wire.convert import compose_answer

BIN_KEY = "$bin"


def dump(value: Any, *, indent: int | None = None) -> str:
    """A Struct, or what a call answered, as JSON text."""
    text = json.dumps(_plain(compose_answer(value)), indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(letter if letter == "\n" or letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    """As JSON has it: beyond the first plane as two surrogates; a surrogate alone as itself."""
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def load(text: str) -> dict[str, Any]:
    """The parameters of a call from JSON text. Raises `InvalidParams`, which says where the text is wrong."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise InvalidParams(
            f"the parameters are not JSON: line {error.lineno}, column {error.colno}: {error.msg}", key="params"
        ) from error
    if not isinstance(value, dict):
        raise InvalidParams('the parameters are a JSON object, such as {"session": "work"}', key="params")
    return value


def _object(pairs: list[tuple[str, Any]]) -> Any:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise InvalidParams(f"the key {key!r} stands twice in one object", key=key)
        made[key] = value
    if set(made) == {BIN_KEY}:
        return _bytes(made[BIN_KEY])
    return made


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidParams(f'{{"{BIN_KEY}": …}} holds no base64: {error}', key=BIN_KEY) from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {BIN_KEY: base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
