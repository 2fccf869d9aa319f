"""Fields: how a value becomes plain JSON of bounded size.

Each rule takes what a service has (bytes, text, a `Struct`, a list) and returns the JSON value with, where it was too
long, a note of the cut: the true size in bytes, the count for lists, the SHA-256 of the whole (each item followed by
NUL). A value of the wrong type raises `Refused`; a long one never does, since a record must not be the reason why
nothing starts.

Bytes that are UTF-8 become text, others `{"b64": …}`. Pure.

A record stands before every command, so what is usual is told by its exact type, without a call; all else goes the longer way behind it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

TEXT_LIMIT_BYTES = 4096
LIST_LIMIT_BYTES = 16 * 1024
LIST_LIMIT_ITEMS = 256
_INTEGER_LEAST, _INTEGER_END = -(2**63), 2**64
_NUMBERS = frozenset([int, float, bool])

Cut = dict[str, Any]
Admitted = tuple[Any, Cut | None]
Rule = Callable[[Any], Admitted]


class Refused(Exception):
    """The value is not of the field's type; the text says what was wanted."""


def text(value: Any) -> Admitted:
    if type(value) is str and value.isascii() and len(value) <= TEXT_LIMIT_BYTES:
        return value, None
    if not isinstance(value, (str, bytes)):
        raise Refused("text or bytes")
    data = _bytes(value)
    if len(data) <= TEXT_LIMIT_BYTES:
        return _plain(data), None
    cut = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return _plain(_whole(data[:TEXT_LIMIT_BYTES])), cut


def texts(value: Any) -> Admitted:
    if not _is_list(value):
        raise Refused("a list of texts")
    items: list[bytes] = []
    for item in value:
        if isinstance(item, bytes):
            items.append(bytes(item))
        elif isinstance(item, str):
            items.append(item.encode("utf-8", "surrogateescape"))
        else:
            raise Refused("a list of texts")
    if not items:
        return [], None
    total = sum(map(len, items))
    if total <= LIST_LIMIT_BYTES and len(items) <= LIST_LIMIT_ITEMS:
        return [_plain(data) for data in items], None
    whole = hashlib.sha256(b"".join(data + b"\0" for data in items)).hexdigest()
    return _first(items), {"items": len(items), "bytes": total, "sha256": whole}


def _first(items: Sequence[bytes]) -> list[Any]:
    """Those that stand before the first that is too much."""
    kept, total = list[Any](), 0
    for data in items[:LIST_LIMIT_ITEMS]:
        total += len(data)
        if total > LIST_LIMIT_BYTES:
            break
        kept.append(_plain(data))
    return kept


def _is_list(value: Any) -> bool:
    if type(value) is tuple or type(value) is list:
        return True
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def integer(value: Any) -> Admitted:
    whole = type(value) is int or (isinstance(value, int) and not isinstance(value, bool))
    if not whole or not _INTEGER_LEAST <= value < _INTEGER_END:
        raise Refused("an integer of 64 bits")
    return value, None


def number(value: Any) -> Admitted:
    if isinstance(value, float) and math.isfinite(value):
        return value, None
    return integer(value)


def flag(value: Any) -> Admitted:
    if value is not True and value is not False:
        raise Refused("true or false")
    return value, None


def signal(value: Any) -> Admitted:
    return text(value) if isinstance(value, str) else integer(value)


def map_of(*keys: str) -> Rule:
    """A map of numbers, flags and short texts with these keys; a Struct counts as its fields."""
    known = frozenset(keys)

    def rule(value: Any) -> Admitted:
        fields = value if type(value) is dict else _fields_of(value)
        kept: dict[str, Any] = {}
        for key, item in fields.items():
            if key not in known:
                raise Refused(f"a map of {', '.join(keys)}; {key!r} is none of them")
            if type(item) in _NUMBERS and _INTEGER_LEAST <= item < _INTEGER_END:
                kept[key] = item
            elif item is not None:
                kept[key] = text(item)[0] if isinstance(item, str) else number(item)[0]
        return kept, None

    return rule


def maps_of(*keys: str) -> Rule:
    """A list of such maps, at most `LIST_LIMIT_ITEMS` of them."""
    one = map_of(*keys)

    def rule(value: Any) -> Admitted:
        if not _is_list(value):
            raise Refused("a list of maps")
        items = [one(item)[0] for item in value]
        data = msgspec.json.encode(items)
        if len(items) <= LIST_LIMIT_ITEMS and len(data) <= LIST_LIMIT_BYTES:
            return items, None
        kept = (
            items[: LIST_LIMIT_ITEMS // 8]
            if len(msgspec.json.encode(items[: LIST_LIMIT_ITEMS // 8])) <= LIST_LIMIT_BYTES
            else []
        )
        return kept, {"items": len(items), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return rule


def _fields_of(value: Any) -> Mapping[str, Any]:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        return value
    raise Refused("a map")


def _bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)


def _plain(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(data).decode()}


def _whole(data: bytes) -> bytes:
    """`data` without the part of a character that a cut left at its end; unchanged where it is no text anyway."""
    for length in range(len(data), max(len(data) - 4, 0), -1):
        try:
            data[:length].decode()
        except UnicodeDecodeError:
            continue
        return data[:length]
    return data
